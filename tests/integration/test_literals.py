"""Array literals mean to PostgreSQL what they mean to us, whatever is in them."""

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from picopay.infra.db import Db
from picopay.infra.tx import bigints, texts

TEXT = st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"]))
AWKWARD = ['"', "\\", '\\"', "{a,b}", "NULL", "null", "", " ", "a\nb", '","', "é☃", "'; --"]


@given(st.lists(st.none() | st.sampled_from(AWKWARD) | TEXT))
@settings(max_examples=200, suppress_health_check=[HealthCheck.function_scoped_fixture])
async def test_texts_are_read_as_they_were_written(db: Db, values: list[str | None]) -> None:
    async with db.read() as tx:
        assert await tx.driver.fetchval("SELECT $1::text::text[]", texts(values)) == values


@pytest.mark.parametrize("numbers", [[], [0], [-(2**63), -1, 2**63 - 1]])
async def test_bigints_are_read_as_they_were_written(db: Db, numbers: list[int]) -> None:
    async with db.read() as tx:
        assert await tx.driver.fetchval("SELECT $1::text::bigint[]", bigints(numbers)) == numbers
