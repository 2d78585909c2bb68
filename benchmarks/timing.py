"""How long checks of keys, secrets and signatures take, by how wrong they are.

`python benchmarks/timing.py` prints distributions, in nanoseconds; nothing is asserted of them. All
cases of a check take turns, so that whatever else the machine does falls on each alike. In memory,
without a network: whoever measures from outside sees less.
"""

import argparse
import asyncio
import hmac
import secrets
from collections.abc import Awaitable, Callable
from contextlib import suppress
from statistics import quantiles
from time import perf_counter_ns
from typing import Any, Final, cast

import structlog

from picopay.access import rules
from picopay.access.errors import ApiKeyInvalid
from picopay.access.keyring import Keyring
from picopay.infra.db import Db
from picopay.kernel import signing

BODY: Final = b'{"transaction_id":"txn_1"}'
SECRET: Final = secrets.token_urlsafe(32)

Check = Callable[[], Awaitable[object]]


class Nobody:
    """A database in which no key is in force, at no distance."""

    async def query(self, _work: object) -> dict[bytes, Any]:
        return {}


def changed(text: str, place: int) -> str:
    """The text with one character replaced."""
    wrong = "0" if text[place] != "0" else "1"
    at = place % len(text)
    return text[:at] + wrong + text[at + 1 :]


def keys(keyring: Keyring, bootstrap: str) -> dict[str, Check]:
    """A revoked key and one that never was are the same to us: not in force."""
    never = rules.mint(secrets.token_bytes(rules.SECRET_BYTES), live=True)

    def check(text: str) -> Check:
        async def checked() -> None:
            with suppress(ApiKeyInvalid):
                await keyring.caller(text)

        return checked

    return {
        "right": check(bootstrap),
        "wrong in its first character": check(changed(bootstrap, 0)),
        "wrong in its last character": check(changed(bootstrap, -1)),
        "of another length": check("x"),
        "well-formed, never made or revoked": check(never),
    }


def admin() -> dict[str, Check]:
    wanted = SECRET.encode()

    def check(text: str) -> Check:
        async def checked() -> bool:
            return hmac.compare_digest(text.encode(), wanted)

        return checked

    return {
        "right": check(SECRET),
        "wrong in its first character": check(changed(SECRET, 0)),
        "wrong in its last character": check(changed(SECRET, -1)),
        "of another length": check("x"),
        "missing": check(""),
    }


def signatures() -> dict[str, Check]:
    right = signing.sign_hex(BODY, SECRET)["X-Signature"]

    def check(text: str) -> Check:
        headers = [(b"x-signature", text.encode())]

        async def checked() -> signing.Verdict:
            return signing.verify(signing.Scheme.HEX, BODY, headers, [SECRET], 0)

        return checked

    return {
        "right": check(right),
        "wrong in its first digit": check(changed(right, 0)),
        "wrong in its last digit": check(changed(right, -1)),
        "no hex": check("x" * 64),
        "missing": check(""),
    }


async def measured(cases: dict[str, Check], rounds: int) -> dict[str, list[int]]:
    taken: dict[str, list[int]] = {name: [] for name in cases}
    for _ in range(rounds):
        for name, check in cases.items():
            began = perf_counter_ns()
            await check()
            taken[name].append(perf_counter_ns() - began)
    return taken


def show(title: str, taken: dict[str, list[int]]) -> None:
    print(f"\n{title:<40}{'p10':>9}{'p50':>9}{'p90':>9}{'p99':>9}  ns")
    for name, times in taken.items():
        cut = quantiles(times, n=100)
        print(f"  {name:<38}" + "".join(f"{cut[p - 1]:>9.0f}" for p in (10, 50, 90, 99)))


async def run(rounds: int) -> None:
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(50))
    keyring = Keyring(cast("Db", Nobody()), secrets.token_bytes(32), SECRET)
    for title, cases in (
        ("API keys", keys(keyring, SECRET)),
        ("admin secret", admin()),
        ("signatures", signatures()),
    ):
        show(title, await measured(cases, rounds))
    await keyring.close()


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=20_000)
    asyncio.run(run(parser.parse_args().rounds))
