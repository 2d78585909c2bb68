"""Callers who never give up: they repeat a charge, with its key, until it is answered for good."""

import asyncio
import time
from collections import Counter
from collections.abc import AsyncGenerator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

from tests.processes import Site, assert_ledger_clean
from tests.races.load import DEPOSIT, Answer, Caller, Wish
from tests.races.truth import assert_each_charged_once, connected

PAUSE_SECONDS = 0.05
# How many of those that were answered at once are asked again; all others are.
AGAIN_MAX = 500


@dataclass
class Shopping:
    """What was wanted, and every answer that came."""

    wishes: list[Wish] = field(default_factory=list[Wish])
    answers: dict[str, list[Answer]] = field(default_factory=dict[str, list[Answer]])
    asked: Counter[str] = field(default_factory=Counter[str])

    async def ask(self, by: Caller, wish: Wish) -> Answer | None:
        if wish.key not in self.answers:
            self.wishes.append(wish)
            self.answers[wish.key] = []
        self.asked[wish.key] += 1
        answer = await by.try_charge(wish)
        if answer is not None:
            self.answers[wish.key].append(answer)
        return answer

    async def insist(self, by: Caller, wish: Wish, *, seconds: float = 30) -> Answer:
        """Ask until it is done, as a client does that may not lose a sale."""
        deadline = asyncio.get_running_loop().time() + seconds
        while True:
            answer = await self.ask(by, wish)
            if answer is not None and answer.status == 200:
                return answer
            assert answer is None or answer.status == 503, answer
            assert asyncio.get_running_loop().time() < deadline, f"never answered: {wish}"
            await asyncio.sleep(PAUSE_SECONDS)

    async def once_each(self, by: Caller, users: Sequence[int], charges: int) -> None:
        """Every user asks for so many charges, one after the other, each twice at once."""

        async def user(user_id: int) -> None:
            for _ in range(charges):
                wish = Wish.of(user_id)
                await asyncio.gather(self.ask(by, wish), self.ask(by, wish))

        await asyncio.gather(*(user(user_id) for user_id in users))

    async def ask_again(self, by: Caller, *, answered_max: int | None = None) -> None:
        """Everything once more, concurrently and twice; or not all that was answered well."""
        doubtful = [wish for wish in self.wishes if not self._was_easy(wish)]
        easy = [wish for wish in self.wishes if self._was_easy(wish)][:answered_max]
        await asyncio.gather(*(self.insist(by, wish) for wish in [*doubtful, *easy] * 2))

    def _was_easy(self, wish: Wish) -> bool:
        """Each time it was asked for, it was answered 200."""
        answers = self.answers[wish.key]
        return len(answers) == self.asked[wish.key] and {a.status for a in answers} == {200}

    @property
    def answered_well(self) -> int:
        return sum(answer.status == 200 for got in self.answers.values() for answer in got)

    @property
    def unanswered(self) -> int:
        return self.asked.total() - sum(map(len, self.answers.values()))

    @property
    def done(self) -> set[str]:
        """The keys that somebody was told 200 for."""
        return {key for key, got in self.answers.items() if any(a.status == 200 for a in got)}

    @property
    def statuses(self) -> set[int]:
        return {answer.status for got in self.answers.values() for answer in got}


@asynccontextmanager
async def load(
    shopping: Shopping,
    callers: Sequence[Caller],
    users: Sequence[int],
    moments: list[float],
    *,
    pause_seconds: float = 0,
) -> AsyncGenerator[None]:
    """Users charge without end, each at any of the callers, until they are told to stop."""
    end = asyncio.Event()

    async def shop(number: int, user: int) -> None:
        for turn in range(1_000_000):
            wish = Wish.of(user)
            while not end.is_set():
                answer = await shopping.ask(callers[(number + turn) % len(callers)], wish)
                if answer is not None and answer.status == 200:
                    moments.append(time.monotonic())
                    break
                turn += 1  # noqa: PLW2901 - try the other server
                await asyncio.sleep(0.05)
            await asyncio.sleep(pause_seconds)
            if end.is_set():
                return

    tasks = [asyncio.create_task(shop(number, user)) for number, user in enumerate(users)]
    try:
        yield
    finally:
        end.set()
        await asyncio.gather(*tasks)


async def assert_told_is_there(site: Site, shopping: Shopping) -> None:
    """Every charge that was answered 200 is there, once, under the id that was told."""
    async with connected(site.database_url) as connection:
        rows = await connection.fetch("SELECT idempotency_key, id::text FROM charges")
    there = {(row[0], row[1]) for row in rows}
    assert len({key for key, _ in there}) == len(there), "a key has made two charges"
    told = {
        (key, answer.json["transaction"]["id"])
        for key, got in shopping.answers.items()
        for answer in got
        if answer.status == 200
    }
    assert told <= there


async def assert_all_is_right(site: Site, shopping: Shopping) -> None:
    """After everything was asked again: each key one charge and one answer, and a clean ledger."""
    assert shopping.done == set(shopping.answers)
    for key, got in shopping.answers.items():
        assert len({answer.body for answer in got if answer.status == 200}) == 1, key
    await assert_told_is_there(site, shopping)
    await assert_each_charged_once(site.database_url, shopping.wishes, DEPOSIT)
    assert_ledger_clean(site.data_dir)
