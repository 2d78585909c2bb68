"""What must hold between charges, refunds, their postings and their idempotency keys."""

from typing import Final

from picopay.infra.checks import by_query

INVARIANTS: Final = (
    by_query(
        "charges",
        "every charge is one posting from its payer to its merchant, and the other way round",
        checked="SELECT count(*) FROM charges",
        drifts="""
SELECT CASE WHEN p.id IS NULL THEN format('charge %s has no such posting', c.id)
            ELSE format('posting %s is a charge without a charge', p.id) END
  FROM charges c
  FULL JOIN (SELECT * FROM postings WHERE kind = 'charge') p
    ON p.debit_owner = c.owner AND p.id = c.id AND p.amount = c.amount
   AND p.currency = c.currency AND p.debit_balance = c.balance_after
   AND p.credit_owner = 'merchant:' || c.merchant_id
 WHERE c.id IS NULL OR p.id IS NULL""",
    ),
    by_query(
        "keyed-charges",
        "every charge made with a key is what that key leads to",
        checked="SELECT count(*) FROM charges WHERE idempotency_key IS NOT NULL",
        drifts="""
SELECT format('charge %s: its key %s leads to %s', c.id, c.idempotency_key,
              coalesce(k.resource_id::text, 'nothing'))
  FROM charges c
  LEFT JOIN idempotency_keys k
    ON k.key = c.idempotency_key AND k.merchant_id = c.merchant_id AND k.operation = 'charge'
 WHERE c.idempotency_key IS NOT NULL AND k.resource_id IS DISTINCT FROM c.id""",
    ),
    by_query(
        "keys",
        "every idempotency key leads to what it has made",
        checked="SELECT count(*) FROM idempotency_keys",
        drifts="""
SELECT format('key %s of %s leads to a missing %s', k.key, k.merchant_id, k.operation)
  FROM idempotency_keys k
  LEFT JOIN charges c ON k.operation = 'charge' AND c.id = k.resource_id
        AND c.merchant_id = k.merchant_id
  LEFT JOIN postings p ON k.operation = 'deposit' AND p.debit_owner = 'world'
        AND p.id = k.resource_id AND p.kind = 'deposit'
  LEFT JOIN charge_refunds r ON k.operation = 'refund' AND r.id = k.resource_id
        AND r.merchant_id = k.merchant_id
 WHERE (k.operation = 'charge' AND c.id IS NULL) OR (k.operation = 'deposit' AND p.id IS NULL)
    OR (k.operation = 'refund' AND r.id IS NULL)""",
    ),
    by_query(
        "refunds",
        "every refund is one posting from its merchant to its payer, and the other way round",
        checked="SELECT count(*) FROM charge_refunds",
        drifts="""
SELECT CASE WHEN p.id IS NULL THEN format('refund %s has no such posting', r.id)
            ELSE format('posting %s is a refund without a refund', p.id) END
  FROM charge_refunds r
  FULL JOIN (SELECT * FROM postings WHERE kind = 'refund') p
    ON p.debit_owner = 'merchant:' || r.merchant_id AND p.id = r.id AND p.amount = r.amount
   AND p.currency = r.currency AND p.credit_owner = r.owner
 WHERE r.id IS NULL OR p.id IS NULL""",
    ),
    by_query(
        "refunded",
        "of every charge as much was refunded as its refunds sum to",
        checked="SELECT count(*) FROM charges WHERE refunded > 0",
        drifts="""
SELECT format('charge %s: %s refunded, its refunds sum to %s',
              coalesce(c.id, r.charge_id), coalesce(c.refunded, 0), coalesce(r.amount, 0))
  FROM (SELECT * FROM charges WHERE refunded > 0) c
  FULL JOIN (SELECT owner, charge_id, merchant_id, currency, sum(amount) AS amount,
                    max(refunded_after) AS refunded_after
               FROM charge_refunds GROUP BY owner, charge_id, merchant_id, currency) r
    ON r.owner = c.owner AND r.charge_id = c.id AND r.merchant_id = c.merchant_id
   AND r.currency = c.currency
 WHERE c.refunded IS DISTINCT FROM r.amount OR c.refunded IS DISTINCT FROM r.refunded_after""",
    ),
    by_query(
        "keyed-refunds",
        "every refund is what one key leads to",
        checked="SELECT count(*) FROM charge_refunds",
        drifts="""
SELECT format('refund %s: %s keys lead to it', r.id, count(k.key))
  FROM charge_refunds r
  LEFT JOIN idempotency_keys k
    ON k.operation = 'refund' AND k.merchant_id = r.merchant_id AND k.resource_id = r.id
 GROUP BY r.owner, r.id HAVING count(k.key) <> 1""",
    ),
)
