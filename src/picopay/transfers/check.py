"""What must hold between transfers and their postings."""

from typing import Final

from picopay.infra.checks import by_query

INVARIANTS: Final = (
    by_query(
        "transfers",
        "every processed transfer is one posting, source to destination, and the other way round",
        checked="SELECT count(*) FROM transfers",
        drifts="""
SELECT CASE WHEN p.id IS NULL THEN format('transfer %s has no such posting', t.transaction_id)
            ELSE format('posting %s is a transfer without a processed transfer', p.id) END
  FROM (SELECT * FROM transfers WHERE status = 'PROCESSED') t
  FULL JOIN (SELECT * FROM postings WHERE kind = 'transfer') p
    ON p.id = t.id AND p.amount = t.amount AND p.currency = t.currency
   AND p.debit_owner = 'external:' || t.source AND p.credit_owner = 'external:' || t.destination
 WHERE t.id IS NULL OR p.id IS NULL""",
    ),
    by_query(
        "owed-transfers",
        "every transfer that is still processing is owed in the outbox",
        checked="SELECT count(*) FROM transfers WHERE status = 'PROCESSING'",
        drifts="""
SELECT format('transfer %s is processing, and nobody is going to process it', t.transaction_id)
  FROM transfers t
 WHERE t.status = 'PROCESSING'
   AND NOT EXISTS (SELECT FROM outbox_queue q
                    WHERE q.aggregate = 'transfer:' || t.transaction_id
                      AND q.consumer = 'transfers')""",
    ),
)
