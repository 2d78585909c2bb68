"""Millions of charges by SQL, just as the server would have written them one by one.

Payers take turns: the n-th charge of all is the k-th of its payer, so every balance and version
follows from n alone. `picopay ledger check` finds nothing to complain of afterwards.
"""

from typing import Final

from psycopg2.extensions import cursor
from servers import Servers, execute

_CHUNK_CHARGES: Final = 250_000  # in a transaction
_AMOUNT: Final = 100  # minor units

# The accounts as they stand before; `turn` numbers the payers from 0.
_BEFORE = """
INSERT INTO accounts (owner, currency, may_overdraw)
VALUES ('merchant:default', 'USD', false) ON CONFLICT DO NOTHING;
CREATE TEMPORARY TABLE payee AS
SELECT owner, credits - debits AS balance, version
  FROM accounts WHERE owner = 'merchant:default' AND currency = 'USD';
CREATE TEMPORARY TABLE payers AS
SELECT row_number() OVER (ORDER BY owner) - 1 AS turn,
       owner, credits - debits AS balance, version
  FROM accounts WHERE owner ^@ 'user:' AND currency = 'USD';
ALTER TABLE payers ADD PRIMARY KEY (turn);
ANALYZE payers
"""

# Two charges a second, up to now. Ids are UUIDv7: 48 bits of time, the version, then chance.
_CHUNK = """
WITH numbered AS (
  SELECT n, n %% %(payers)s AS turn, n / %(payers)s + 1 AS k,
         now() - (%(charges)s - n) * interval '0.5 s' AS at
    FROM generate_series(%(first)s::bigint, %(last)s::bigint) AS n),
made AS MATERIALIZED (
  SELECT payers.owner, payee.owner AS merchant, at, gen_random_uuid()::text AS key,
         (lpad(to_hex((extract(epoch FROM at) * 1000)::bigint), 12, '0') || '7'
          || substr(replace(gen_random_uuid()::text, '-', ''), 14))::uuid AS id,
         payers.balance - k * %(amount)s AS debit_balance, payers.version + k AS debit_version,
         payee.balance + (n + 1) * %(amount)s AS credit_balance,
         payee.version + n + 1 AS credit_version
    FROM numbered JOIN payers USING (turn) CROSS JOIN payee
   ORDER BY n),
posted AS (
  INSERT INTO postings (debit_owner, id, credit_owner, currency, amount, kind, debit_balance,
                        debit_version, credit_balance, credit_version, created_at)
  SELECT owner, id, merchant, 'USD', %(amount)s, 'charge', debit_balance,
         debit_version, credit_balance, credit_version, at FROM made),
claimed AS (
  INSERT INTO idempotency_keys (key, merchant_id, operation, resource_id)
  SELECT key, 'default', 'charge', id FROM made)
INSERT INTO charges (owner, id, merchant_id, currency, amount, balance_after, idempotency_key,
                     created_at)
SELECT owner, id, 'default', 'USD', %(amount)s, debit_balance, key, at FROM made
"""

_TOTALS = """
UPDATE accounts a SET debits = a.debits + made.k * %(amount)s, version = a.version + made.k
  FROM (SELECT owner, count(*) AS k
          FROM generate_series(0, %(charges)s::bigint - 1) AS n
          JOIN payers ON payers.turn = n %% %(payers)s GROUP BY owner) AS made
 WHERE a.owner = made.owner AND a.currency = 'USD';
UPDATE accounts SET credits = credits + %(charges)s * %(amount)s, version = version + %(charges)s
 WHERE owner = 'merchant:default' AND currency = 'USD'
"""


def preload(servers: Servers, database: str, charges: int) -> None:
    """Nobody else may write meanwhile; only at the end do accounts agree with their postings."""
    connected = servers.connect(database)
    try:
        with connected.cursor() as writer:
            _write(writer, charges)
    finally:
        connected.close()
    execute(servers, database, "VACUUM ANALYZE")  # as autovacuum would have, over so long a time


def _write(writer: cursor, charges: int) -> None:
    writer.execute(_BEFORE)
    writer.execute("SELECT count(*) FROM payers")
    row = writer.fetchone()
    assert row is not None
    values = {"charges": charges, "payers": row[0], "amount": _AMOUNT}
    for first in range(0, charges, _CHUNK_CHARGES):
        last = min(first + _CHUNK_CHARGES, charges) - 1
        writer.execute(_CHUNK, values | {"first": first, "last": last})
    writer.execute(_TOTALS, values)
