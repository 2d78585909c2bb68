"""What arrives while a batch commits is the next batch, and who cannot be done fails alone."""

import asyncio
from collections.abc import Sequence

import pytest

from picopay.infra.db import CommitInDoubt
from picopay.infra.gathering import Gatherer
from picopay.infra.logs import request_id_var
from picopay.kernel.errors import Overloaded


class Commits:
    """Doubles numbers, one batch after the other; knows what was asked for, and on whose behalf."""

    def __init__(self) -> None:
        self.batches: list[list[int]] = []
        self.request_ids: set[str | None] = set()

    async def __call__(self, numbers: Sequence[int]) -> list[int]:
        self.batches.append(list(numbers))
        self.request_ids.add(request_id_var.get())
        await asyncio.sleep(0.01)
        if 13 in numbers:
            raise ValueError("13")
        if 14 in numbers:
            raise CommitInDoubt("14")
        return [2 * number for number in numbers]


async def test_what_arrives_meanwhile_is_the_next_batch() -> None:
    commits = Commits()
    gatherer = Gatherer("numbers", commits)
    first = asyncio.create_task(gatherer.submit(1))
    await asyncio.sleep(0.005)
    assert await asyncio.gather(gatherer.submit(2), gatherer.submit(3)) == [4, 6]
    assert await first == 2
    assert commits.batches == [[1], [2, 3]]


async def test_it_works_again_after_it_has_rested() -> None:
    gatherer = Gatherer("numbers", Commits())
    assert await gatherer.submit(1) == 2
    assert await gatherer.submit(2) == 4


async def test_who_fails_fails_alone() -> None:
    gatherer = Gatherer("numbers", Commits())
    told = await asyncio.gather(*map(gatherer.submit, [12, 13, 15]), return_exceptions=True)
    assert (told[0], told[2]) == (24, 30)
    assert isinstance(told[1], ValueError)


async def test_a_commit_in_doubt_is_nobodys_fault_and_told_to_all() -> None:
    commits = Commits()
    gatherer = Gatherer("numbers", commits)
    told = await asyncio.gather(*map(gatherer.submit, [12, 14, 15]), return_exceptions=True)
    assert [type(each) for each in told] == [CommitInDoubt] * 3
    assert commits.batches == [[12, 14, 15]]


async def test_a_batch_is_no_requests_own() -> None:
    commits = Commits()
    token = request_id_var.set("of-the-first")
    try:
        await Gatherer("numbers", commits).submit(1)
    finally:
        request_id_var.reset(token)
    assert commits.request_ids == {None}


async def test_its_end_waits_for_what_was_accepted_and_takes_nothing_more() -> None:
    gatherer = Gatherer("numbers", Commits())
    waiting = [asyncio.create_task(gatherer.submit(number)) for number in (1, 2)]
    await asyncio.sleep(0)
    await gatherer.close()
    assert [task.done() and task.result() for task in waiting] == [2, 4]
    with pytest.raises(Overloaded):
        await gatherer.submit(3)
