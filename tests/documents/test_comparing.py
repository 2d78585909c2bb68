"""What a page shows is compared to the last digit: only ids, times and cursors may differ."""

import pytest
from tests.documents.pages import blocks_in, compare, parsed

ID, OTHER = "01a227b1-372e-76aa-955f-fb8d0efbc909", "01a227b2-0000-7000-8000-000000000000"
TIME, LATER = "2026-01-15T10:30:00Z", "2026-01-15T10:30:01.123456Z"


@pytest.mark.parametrize(
    ("shown", "came"),
    [
        ('{"amount": 1.00}', '{"amount": 1.0}'),
        ('{"amount": 1.00}', '{"amount": "1.00"}'),
        ('{"a": 1, "b": 2}', '{"b": 2, "a": 1}'),
        ('{"a": 1}', '{"a": 1, "b": 2}'),
        ("[1]", "[1, 1]"),
        ('{"status": "paid"}', '{"status": "canceled"}'),
        ('{"note": null}', '{"note": "something"}'),
        (f'{{"at": "{TIME}"}}', '{"at": "yesterday"}'),
        (f'{{"id": "{ID}"}}', '{"id": "none"}'),
        (f'["{ID}", "{ID}"]', f'["{ID}", "{OTHER}"]'),
    ],
)
def test_what_differs_is_noticed(shown: str, came: str) -> None:
    with pytest.raises(AssertionError):
        compare(parsed(shown), parsed(came), {})


def test_ids_and_times_are_those_of_the_run_and_the_same_everywhere() -> None:
    ids: dict[str, str] = {}
    shown = f'{{"id": "{ID}", "at": "{TIME}", "of": "order:{ID}", "amount": 1.50}}'
    came = f'{{"id": "{OTHER}", "at": "{LATER}", "of": "order:{OTHER}", "amount": 1.50}}'
    compare(parsed(shown), parsed(came), ids)
    assert ids == {ID: OTHER}


def test_a_block_knows_the_status_that_is_told_after_it() -> None:
    (block, shown) = blocks_in(
        "Try:\n\n```bash\ncurl x\n```\n\nAnswered 201:\n\n```json\n{}\n```\n"
    )
    assert (block.language, block.text, block.status) == ("bash", "curl x\n", 201)
    assert (shown.language, shown.status) == ("json", None)
