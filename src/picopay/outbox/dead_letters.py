"""Use cases of dead letters: look at them, replay them, discard them. Each is resolved once."""

from uuid import UUID

from picopay.infra.db import Db
from picopay.infra.ids import new_id
from picopay.infra.tx import Tx
from picopay.outbox import dead_letters_store as letters_store
from picopay.outbox import store
from picopay.outbox.errors import DeadLetterNotFound
from picopay.outbox.model import Chosen, DeadLetter, NewEvent, Note, Resolution

# Resolved in one transaction; more are taken in several, each with an audit row of its own.
BATCH_MAX = 1000


async def page(
    db: Db, chosen: Chosen, after: UUID | None, limit: int, *, resolved: bool
) -> list[DeadLetter]:
    """Newest first; one more than `limit` tells that there are more. Open ones, or all."""
    return await db.query(
        lambda tx: letters_store.select_page(tx, chosen, after, limit + 1, resolved=resolved)
    )


async def show(db: Db, letter_id: UUID) -> tuple[DeadLetter, bytes]:
    """The letter and its event's body. Raises `DeadLetterNotFound`."""
    found = await db.query(lambda tx: letters_store.select_letter(tx, letter_id))
    if found is None:
        raise DeadLetterNotFound(f"there is no dead letter {letter_id}")
    return found


async def count(db: Db, chosen: Chosen) -> int:
    """How many open ones are meant: what `resolve` would do, without doing it."""
    return await db.query(lambda tx: letters_store.count_open(tx, chosen))


async def resolve(db: Db, chosen: Chosen, note: Note) -> int:
    """Replay or discard all that are chosen and open; how many those were.

    A replayed event keeps its identity, so an effect that it had before is not repeated. With
    `note.per_second` the events come due one after the other at that rate.
    """
    done = 0
    meant: Chosen | None = None
    while True:
        async with db.begin() as tx:
            if meant is None:
                # What dies again meanwhile is another decision, or a replay might never end.
                now = await letters_store.now(tx)
                meant = chosen._replace(died_before=min(now, chosen.died_before or now))
            letters = await letters_store.lock_open(tx, meant, BATCH_MAX)
            if not letters:
                return done
            await _resolve(tx, letters, note, done)
            await letters_store.insert_audit(tx, new_id(), note, chosen, len(letters))
        done += len(letters)


async def discard(tx: Tx, like: NewEvent, note: Note) -> None:
    """Give up what is open of events that say the same: a person has done their work."""
    letters = await letters_store.lock_like(tx, like)
    if letters:
        await _resolve(tx, letters, note, 0)
        chosen = Chosen(ids=tuple(letter.id for letter in letters))
        await letters_store.insert_audit(tx, new_id(), note, chosen, len(letters))


async def _resolve(tx: Tx, letters: list[DeadLetter], note: Note, done: int) -> None:
    await letters_store.resolve(tx, letters, note)
    if note.resolution is Resolution.REPLAYED:
        gap = 1 / note.per_second if note.per_second else 0.0
        delays = [(done + number) * gap for number in range(len(letters))]
        await letters_store.requeue(tx, letters, delays)
        return
    halted = [letter for letter in letters if letter.halts]
    if halted:
        await letters_store.drop_halted(tx, halted)
        await store.unblock(tx, [(letter.aggregate, letter.consumer) for letter in halted])
