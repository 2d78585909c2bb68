"""What becomes of an event whose handler failed: pure, so that the schedule can be proven."""

from collections.abc import Sequence
from typing import NamedTuple

from picopay.outbox.errors import NotYet, Permanent
from picopay.outbox.model import Claim, Reason

# How often a claim may be given back without counting as an attempt: a worker that is stopped
# over and over must not keep an event alive for ever.
RELEASES_MAX = 20
ERROR_TEXT_MAX = 500
# Looking must not become a load itself: it takes at most this share of the time. But it comes
# back: a slow look is more likely a hiccup than a queue that long.
CHORE_SHARE_MAX = 0.05
CHORE_PAUSE_SECONDS_MAX = 60.0
# How long another's lock is left alone, at least, before it is tried again.
LOCKED_SECONDS = 1.0


class Policy(NamedTuple):
    """`attempts_max` counts the first; delays double from `base_delay_seconds`."""

    attempts_max: int = 6
    base_delay_seconds: float = 1
    jitter: float = 0.1


class RetryIn(NamedTuple):
    seconds: float


class DeferFor(NamedTuple):
    """As a retry, but the attempt does not count."""

    seconds: float


class Bury(NamedTuple):
    reason: Reason


def after_failure(
    error: BaseException, attempts: int, policy: Policy, chance: float
) -> RetryIn | DeferFor | Bury:
    """`chance`, from 0 to 1, spreads retries: only upwards, so that the delays are minimums."""
    if isinstance(error, NotYet):
        return DeferFor(error.seconds)
    if isinstance(error, Permanent):
        return Bury(Reason.REJECTED)
    if attempts >= policy.attempts_max:
        return Bury(Reason.EXHAUSTED)
    return RetryIn(delay(attempts, policy) * (1 + policy.jitter * chance))


def after_waiting(why: str, attempts: int, policy: Policy, chance: float) -> NotYet:
    """Who met another's lock has not failed: it comes back, later and later once that counts."""
    seconds = max(LOCKED_SECONDS, delay(attempts, policy))
    return NotYet(seconds * (1 + policy.jitter * chance), why)


def halves(claims: Sequence[Claim]) -> tuple[Sequence[Claim], Sequence[Claim]]:
    """Of a batch that failed: who is to blame is found in a few steps, and most go on at once."""
    middle = len(claims) // 2
    return claims[:middle], claims[middle:]


def delay(attempts: int, policy: Policy) -> float:
    """Seconds after that many failed attempts: 1, 2, 4, 8, 16."""
    return policy.base_delay_seconds * 2 ** (attempts - 1)


def is_spent(attempts: int, policy: Policy) -> bool:
    """Whether a row just claimed has had all its attempts, and none of them was its last."""
    return attempts > policy.attempts_max


def last_word(attempts: int, error: str | None) -> tuple[Reason, str]:
    """Why a spent row is buried: what an attempt said, or that none of them said anything."""
    if error is not None:
        return Reason.EXHAUSTED, error
    return Reason.CRASHED, f"{attempts - 1} attempts ended without a word"


def is_all(claims: Sequence[Claim], room: int) -> bool:
    """Whether the look found all that is due: there was room for more, and it left nothing."""
    return len(claims) < room and not any(claim.left_others for claim in claims)


def pause_after(took_seconds: float, seconds: float) -> float:
    """Until a chore that is done each so many seconds is done again."""
    return max(seconds, min(took_seconds / CHORE_SHARE_MAX, CHORE_PAUSE_SECONDS_MAX))


def text_of(error: BaseException) -> str:
    """What an operator reads: the error's kind and message, of bounded length."""
    said = f"{type(error).__name__}: {error}".replace("\0", "")
    return said.encode(errors="replace").decode()[:ERROR_TEXT_MAX]


def about(claim: Claim) -> dict[str, object]:
    """For log lines."""
    event = claim.event
    return {
        "type": event.type,
        "aggregate": event.aggregate,
        "consumer": claim.consumer,
        "attempts": claim.attempts,
        "request_id": event.request_id,
    }
