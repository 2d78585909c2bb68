"""What follows from an answer, or from none: a result, an error, or another try after a pause.

Pure: time and chance are arguments. Both clients ask it, and only they wait and send.
"""

from dataclasses import dataclass
from datetime import datetime
from email.utils import parsedate_to_datetime
from http import HTTPStatus
from typing import Final, Generic, TypeVar

from picopay.client.errors import (
    AnswerUnreadable,
    NotSent,
    PicoPayError,
    Problem,
    ProblemTold,
    Unanswered,
    family,
)
from picopay.client.fields import Fields, Malformed, decode
from picopay.client.wire import Answer, Call, Garbage, Outcome, Repeat, Silence, Told

T = TypeVar("T")

# What passes by itself. Everything else would be answered the same again.
RETRIED: Final = frozenset({429, 502, 503, 504})
_MEMBERS: Final = ("type", "title", "status", "detail", "code", "request_id")
_SECONDS_DIGITS_MAX: Final = 9


@dataclass(frozen=True, slots=True)
class Limits:
    """A call ends within `deadline_seconds`, whatever happens: all tries and pauses included.

    One try may take `attempt_seconds`, of which connecting `connect_seconds`. Pauses double from
    `pause_seconds` to `pause_seconds_max` and are drawn between half and the whole of that; the
    server's `Retry-After` is waited for in full, or the call given up if it leads too far.
    """

    deadline_seconds: float = 60.0
    attempt_seconds: float = 20.0
    connect_seconds: float = 5.0
    attempts_max: int = 5
    pause_seconds: float = 0.25
    pause_seconds_max: float = 8.0
    connections_max: int = 100
    answer_bytes_max: int = 8 * 1024 * 1024


@dataclass(frozen=True, slots=True)
class Tried:
    """How it stands after a try. `chance` is drawn from [0, 1)."""

    attempts: int
    seconds_left: float
    chance: float
    request_id: str | None = None


@dataclass(frozen=True, slots=True)
class Done(Generic[T]):
    value: T


@dataclass(frozen=True, slots=True)
class Pause:
    seconds: float


def settle(call: Call[T], outcome: Outcome, tried: Tried, limits: Limits) -> Done[T] | Pause:
    """Raises the `PicoPayError` that it ends with, if it does."""
    if isinstance(outcome, Answer) and call.is_answered_by(outcome.status):
        return Done(_read(call, outcome, tried))
    error = _error(call, outcome, tried)
    if (
        call.repeat is Repeat.NEVER
        or not _may_pass(outcome)
        or tried.attempts >= limits.attempts_max
    ):
        raise error
    asked = error.retry_after_seconds if isinstance(error, Problem) else None
    seconds = pause_seconds(tried, limits, asked)
    if seconds >= tried.seconds_left:
        raise error
    return Pause(seconds)


def _may_pass(outcome: Outcome) -> bool:
    match outcome:
        case Answer(status=status):
            return status in RETRIED
        case Silence():
            return True
        case Garbage():
            return False


def pause_seconds(tried: Tried, limits: Limits, asked_seconds: float | None) -> float:
    """Never less than was asked for; more by chance, so that many callers do not come at once."""
    most = min(limits.pause_seconds_max, limits.pause_seconds * 2 ** (tried.attempts - 1))
    drawn = most * (1 + tried.chance) / 2
    return drawn if asked_seconds is None else asked_seconds + drawn


def _read(call: Call[T], answer: Answer, tried: Tried) -> T:
    try:
        return call.read(Told(answer, call.key))
    except Malformed as error:
        request_id = answer.headers.get("x-request-id", tried.request_id)
        raise AnswerUnreadable(f"{answer.status}: {error}", call.key, request_id) from None


def _error(call: Call[T], outcome: Outcome, tried: Tried) -> PicoPayError:
    match outcome:
        case Silence(sent, why):
            return (Unanswered if sent else NotSent)(why, call.key, tried.request_id)
        case Garbage(why):
            return AnswerUnreadable(why, call.key, tried.request_id)
        case Answer(status) if status < HTTPStatus.BAD_REQUEST:
            why = f"{status}: neither success nor a problem"
            return AnswerUnreadable(why, call.key, tried.request_id)
        case Answer(status):
            told = _problem(outcome, tried)
            return family(told.code, status)(told, call.key)


def _problem(answer: Answer, tried: Tried) -> ProblemTold:
    """Whatever there is of a problem document: proxies answer too, in their own way."""
    try:
        fields = Fields(decode(answer.body))
    except Malformed:
        fields = Fields({})
    return ProblemTold(
        answer.status,
        _text(fields, "code"),
        _text(fields, "title") or _phrase(answer.status),
        _text(fields, "detail") or "",
        _text(fields, "request_id") or answer.headers.get("x-request-id", tried.request_id),
        fields.besides(*_MEMBERS),
        retry_after_seconds(answer),
    )


def _text(fields: Fields, name: str) -> str | None:
    value = fields.get(name)
    return value if isinstance(value, str) and value else None


def _phrase(status: int) -> str:
    try:
        return HTTPStatus(status).phrase
    except ValueError:
        return f"status {status}"


def retry_after_seconds(answer: Answer) -> float | None:
    """Its `Retry-After`: seconds, or a moment, which is measured by the answer's own clock."""
    text = answer.headers.get("retry-after", "").strip()
    if text.isascii() and text.isdigit() and len(text) <= _SECONDS_DIGITS_MAX:
        return float(text)
    then, now = _moment(text), _moment(answer.headers.get("date", ""))
    if then is None or now is None:
        return None
    return max(0.0, (then - now).total_seconds())


def _moment(text: str) -> datetime | None:
    try:
        moment = parsedate_to_datetime(text)
    except ValueError:
        return None
    return moment if moment.tzinfo else None
