"""For operators: health, and work that was given up (scope `admin`)."""

from collections.abc import Sequence
from uuid import UUID

from picopay.client.calls.pages import listing
from picopay.client.fields import Fields, encode
from picopay.client.model import (
    DeadLetter,
    DeadLetterFound,
    DeadLetterReason,
    Health,
    Resolved,
)
from picopay.client.wire import Call, Credential, Listing, Repeat, Told, path


def health() -> Call[Health]:
    """How the server stands; also when it is unhealthy, which is an answer and no error."""
    return Call(
        method="GET",
        path="/healthz",
        credential=Credential.NONE,
        repeat=Repeat.NEVER,
        answers=frozenset({503}),
        read=_read_health,
    )


def list_dead_letters(
    *,
    consumer: str | None = None,
    type: str | None = None,  # noqa: A002 - the API's word
    reason: DeadLetterReason | None = None,
    resolved: bool = False,
    limit: int = 100,
) -> Listing[DeadLetter]:
    """Events that were given up, newest first; `resolved`: also those that were seen to."""
    params = {
        "consumer": consumer,
        "type": type,
        "reason": reason,
        "resolved": resolved,
        "limit": limit,
    }
    return listing("/v1/admin/dead-letters", params, _letter)


def get_dead_letter(letter_id: UUID | str) -> Call[DeadLetterFound]:
    return Call(method="GET", path=path("/v1/admin/dead-letters/{}", letter_id), read=_read_letter)


def replay(
    ids: Sequence[UUID | str], *, note: str, per_second: float | None = None
) -> Call[Resolved]:
    """Hand them to their consumers once more. Not tried again by itself."""
    body: dict[str, object] = {"ids": [str(each) for each in ids], "note": note}
    return _resolve("replay", body if per_second is None else {**body, "per_second": per_second})


def discard(ids: Sequence[UUID | str], *, note: str) -> Call[Resolved]:
    """Give them up for good. Not tried again by itself."""
    return _resolve("discard", {"ids": [str(each) for each in ids], "note": note})


def _resolve(how: str, body: dict[str, object]) -> Call[Resolved]:
    return Call(
        method="POST",
        path=f"/v1/admin/dead-letters/{how}",
        body=encode(body),
        repeat=Repeat.NEVER,
        read=_read_resolved,
    )


def _read_health(told: Told) -> Health:
    fields = Fields(told.json)
    return Health(fields.text("status"), fields.text("database"), fields.text("redis"))


def _read_letter(told: Told) -> DeadLetterFound:
    fields = Fields(told.json)
    return DeadLetterFound(_letter(fields.one("letter")), fields.get("body"))


def _read_resolved(told: Told) -> Resolved:
    fields = Fields(told.json)
    return Resolved(fields.whole("matched"), fields.whole("resolved"))


def _letter(fields: Fields) -> DeadLetter:
    return DeadLetter(
        fields.id("id"),
        fields.text("consumer"),
        fields.text("type"),
        fields.id("event_id"),
        fields.text("aggregate"),
        fields.text("reason"),
        fields.whole("attempts"),
        fields.text("error"),
        fields.moment("died_at"),
        fields.flag("halts"),
        fields.moment_or_none("resolved_at"),
        fields.text_or_none("resolution"),
        fields.text_or_none("resolved_by"),
        fields.text_or_none("note"),
    )
