"""The background worker, put together: every slice's consumers on one relay."""

from secrets import SystemRandom
from typing import Final

from picopay.audit import auditors
from picopay.fake_payments import handlers as fake_payments
from picopay.infra import sessions
from picopay.infra.db import Db
from picopay.infra.http import Http
from picopay.infra.ids import process_name
from picopay.infra.settings import Settings
from picopay.orders import handlers as orders
from picopay.orders.gateway import Gateway
from picopay.outbox.bell import Bell, Listener
from picopay.outbox.chores import Chores, Sampler
from picopay.outbox.consumer import Consumer
from picopay.outbox.model import Holder
from picopay.outbox.relay import Relay, Terms
from picopay.outbox.rules import Policy
from picopay.transfers.handlers import TRANSFERS

GRACE_SECONDS: Final = 20
# None beyond those that are kept: to connect takes longer than most of what it is for.
POOL_SIZE: Final = 24


def consumers(settings: Settings, db: Db, http: Http) -> list[Consumer]:
    """Callbacks of a fake provider that has been switched off wait until it is on again."""
    gateway = Gateway(http, f"{settings.picopay_url}/_fake_payments")
    chosen = [TRANSFERS, *orders.consumers(db, gateway, settings.order_payment_timeout_seconds)]
    if settings.fake_payment_enabled:
        chosen.append(fake_payments.consumer(settings, http))
    return chosen


class Worker:
    """Any number may run, in server processes and alone; it begins at once."""

    def __init__(
        self, settings: Settings, bell: Bell | None = None, *, samples: bool = False
    ) -> None:
        """Woken by its process's `bell`, or else by what other processes announce.

        With `samples` it measures queue and ledger: for a metrics page that no server shows.
        """
        assert settings.database_url is not None
        self._db = Db(
            settings.database_url,
            pool_size=POOL_SIZE,
            max_overflow=0,
            session=sessions.BACKGROUND,
        )
        policy = Policy(settings.outbox_max_attempts, settings.outbox_retry_base_delay_seconds)
        owner = process_name()
        holder = Holder(owner, settings.outbox_lease_seconds)
        heard = bell or Bell()
        self._listener = None if bell else Listener(self._db, heard)
        terms = Terms(holder, policy, SystemRandom().random)
        self._http = Http()
        self._relay = Relay(self._db, consumers(settings, self._db, self._http), terms, heard)
        self._chores = Chores(self._db, owner, settings.outbox_retention_days)
        self._watchers = [Sampler(self._db), *auditors(settings)] if samples else []

    async def stop(self) -> None:
        """Finish what is in hand, and give back the rest."""
        await self._chores.stop()
        for watcher in self._watchers:
            await watcher.stop()
        if self._listener is not None:
            await self._listener.stop()
        await self._relay.stop(GRACE_SECONDS)
        await self._db.close()
        await self._http.close()
