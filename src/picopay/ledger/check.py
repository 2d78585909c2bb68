"""What must hold of accounts and postings; each claim stands in a rule and a constraint too."""

from collections.abc import AsyncIterator
from typing import Any, Final

from picopay.infra.checks import Finding, Invariant, by_query
from picopay.infra.tx import Tx

ACCOUNTS_A_STEP: Final = 500

# Replays the postings of a range of accounts: totals, gapless versions, running balances.
_REPLAY: Final = """
WITH accounts_now AS (
  SELECT owner, currency, may_overdraw, debits, credits, version
    FROM accounts WHERE (owner, currency) > ($1, $2)
   ORDER BY owner, currency LIMIT $3),
sides AS (
  SELECT a.owner, a.currency, p.debit_version AS version, -p.amount AS amount,
         p.debit_balance AS balance
    FROM accounts_now a JOIN postings p ON p.debit_owner = a.owner AND p.currency = a.currency
  UNION ALL
  SELECT a.owner, a.currency, p.credit_version, p.amount, p.credit_balance
    FROM accounts_now a JOIN postings p ON p.credit_owner = a.owner AND p.currency = a.currency),
replayed AS (
  SELECT owner, currency, amount,
         version <> row_number() OVER history AS gap,
         balance <> sum(amount) OVER history AS wrong
    FROM sides
  WINDOW history AS (PARTITION BY owner, currency ORDER BY version ROWS UNBOUNDED PRECEDING)),
summed AS (
  SELECT owner, currency, count(*) AS postings,
         coalesce(-sum(amount) FILTER (WHERE amount < 0), 0) AS debits,
         coalesce(sum(amount) FILTER (WHERE amount > 0), 0) AS credits,
         count(*) FILTER (WHERE gap) AS gaps, count(*) FILTER (WHERE wrong) AS wrong
    FROM replayed GROUP BY owner, currency)
SELECT a.owner, a.currency, a.may_overdraw, a.debits, a.credits, a.version,
       coalesce(s.postings, 0) AS postings, coalesce(s.debits, 0) AS replayed_debits,
       coalesce(s.credits, 0) AS replayed_credits, coalesce(s.gaps, 0) AS gaps,
       coalesce(s.wrong, 0) AS wrong
  FROM accounts_now a LEFT JOIN summed s USING (owner, currency)
 ORDER BY a.owner, a.currency
"""


async def _replay(tx: Tx) -> AsyncIterator[Finding]:
    last = ("", "")
    while rows := await tx.driver.fetch(_REPLAY, *last, ACCOUNTS_A_STEP):
        yield Finding(len(rows), [drift for row in rows for drift in _drifts(row)])
        last = (rows[-1]["owner"], rows[-1]["currency"])


def _drifts(row: Any) -> list[str]:  # noqa: ANN401 - a driver's row
    account = f"account {row['owner']} {row['currency']}"
    claims = {
        f"debits are {row['debits']}, its postings sum to {row['replayed_debits']}": (
            row["debits"] == row["replayed_debits"]
        ),
        f"credits are {row['credits']}, its postings sum to {row['replayed_credits']}": (
            row["credits"] == row["replayed_credits"]
        ),
        f"version is {row['version']}, it has {row['postings']} postings": (
            row["version"] == row["postings"]
        ),
        f"{row['gaps']} postings leave a gap in its versions": row["gaps"] == 0,
        f"{row['wrong']} postings tell a wrong balance": row["wrong"] == 0,
        "is overdrawn": row["may_overdraw"] or row["credits"] >= row["debits"],
    }
    return [f"{account}: {claim}" for claim, holds in claims.items() if not holds]


_ZERO_SUM: Final = by_query(
    "zero-sum",
    "in every currency, debits equal credits over all accounts",
    checked="SELECT count(DISTINCT currency) FROM accounts",
    drifts="""
SELECT format('%s: debits are %s, credits are %s', currency, sum(debits), sum(credits))
  FROM accounts GROUP BY currency HAVING sum(debits) <> sum(credits)""",
)

_TWO_SIDES: Final = by_query(
    "two-sides",
    "every posting has an account on each side",
    checked="SELECT count(*) FROM postings",
    drifts="""
SELECT format('posting %s: no account %s %s', p.id, side.owner, p.currency)
  FROM postings p CROSS JOIN LATERAL (VALUES (p.debit_owner), (p.credit_owner)) AS side(owner)
  LEFT JOIN accounts a ON a.owner = side.owner AND a.currency = p.currency
 WHERE a.owner IS NULL""",
)

_UNCHANGEABLE: Final = by_query(
    "unchangeable",
    "the app's role cannot change or remove a posting",
    checked="SELECT 1",
    drifts="""
SELECT format('picopay_app may %s postings', privilege)
  FROM unnest(ARRAY['UPDATE', 'DELETE', 'TRUNCATE']) AS privilege
 WHERE has_table_privilege('picopay_app', 'postings', privilege)""",
)

INVARIANTS: Final = (
    Invariant("balances", "every account is what its postings make it", _replay),
    _ZERO_SUM,
    _TWO_SIDES,
    _UNCHANGEABLE,
)
