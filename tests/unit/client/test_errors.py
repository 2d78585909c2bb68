"""Errors: every code has its family, and what is raised survives a job queue."""

import pickle
import re
from pathlib import Path

import pytest

from picopay.client import errors
from picopay.client.errors import (
    FAMILIES,
    AnswerUnreadable,
    Declined,
    Forbidden,
    Invalid,
    NotFound,
    NotSent,
    PicoPayError,
    Problem,
    ProblemTold,
    RateLimited,
    ServerFailed,
    Unanswered,
    Unauthorized,
    Unavailable,
    family,
)

PAGE = (Path(__file__).parents[3] / "docs/reference/errors.md").read_text()
LISTED = {
    code: int(status)
    for code, status in re.findall(r"^\| `(\S+)` \| (\d{3})(?:, or \d{3})? \|", PAGE, re.MULTILINE)
}
TOLD = ProblemTold(409, "insufficient-stock", "t", "d", "r", {"available": 1}, None)


def test_the_codes_are_those_of_the_reference() -> None:
    assert len(LISTED) > 30
    assert set(FAMILIES) == set(LISTED)


@pytest.mark.parametrize(
    ("class_", "statuses"),
    [
        (Unauthorized, {401}),
        (Forbidden, {403}),
        (NotFound, {404}),
        (RateLimited, {429}),
        (Unavailable, {503}),
        (ServerFailed, {500}),
        (Declined, {400, 409, 422}),
        (Invalid, {400, 405, 413, 422}),
    ],
)
def test_a_family_has_its_statuses(class_: type[Problem], statuses: set[int]) -> None:
    found = {LISTED[code] for code, of in FAMILIES.items() if issubclass(of, class_)}
    assert found == statuses


@pytest.mark.parametrize(
    ("status", "expected"),
    [(401, Unauthorized), (409, Declined), (418, Problem), (500, ServerFailed), (504, Unavailable)],
)
def test_a_code_of_a_later_version_is_taken_by_its_status(
    status: int, expected: type[Problem]
) -> None:
    assert family("never-heard-of", status) is expected
    assert family(None, status) is expected


@pytest.mark.parametrize(
    "error",
    [
        NotSent("refused", "key", "request"),
        Unanswered("late", "key", "request"),
        AnswerUnreadable("garbled", "key", "request"),
        Declined(TOLD, "key"),
    ],
    ids=lambda error: type(error).__name__,
)
def test_an_error_is_pickled_with_all_it_knows(error: PicoPayError) -> None:
    again: PicoPayError = pickle.loads(pickle.dumps(error))  # noqa: S301 - ours
    assert type(again) is type(error)
    assert str(again) == str(error)
    assert vars(again) == vars(error)
    assert again.idempotency_key == "key"


def test_a_problem_tells_its_code_first() -> None:
    error = Declined(TOLD, "key")
    assert str(error) == "insufficient-stock: d"
    assert (error.code, error.status, error.request_id) == ("insufficient-stock", 409, "r")
    assert error.fields == {"available": 1}


def test_whatever_is_raised_is_a_picopay_error() -> None:
    raised = [value for value in vars(errors).values() if isinstance(value, type)]
    of_ours = [each for each in raised if issubclass(each, Exception)]
    assert len(of_ours) > 10
    assert all(issubclass(each, PicoPayError) for each in of_ours)
