"""What must hold between orders, their stock and their money."""

from typing import Final

from picopay.infra.checks import by_query

INVARIANTS: Final = (
    by_query(
        "order-totals",
        "every order comes to the sum of its items",
        checked="SELECT count(*) FROM orders",
        drifts="""
SELECT format('order %s comes to %s, its items to %s', o.id, o.items_total, i.total)
  FROM orders o
  LEFT JOIN (SELECT order_id, sum(quantity * price) AS total FROM order_items
              GROUP BY order_id) i ON i.order_id = o.id
 WHERE i.total IS DISTINCT FROM o.items_total""",
    ),
    by_query(
        "order-stock",
        "every item was taken from stock, and came back if, and only if, its order is canceled",
        checked="SELECT count(*) FROM order_items",
        drifts="""
SELECT format('order %s is %s: of product %s it has %s, took %s and returned %s', o.id, o.status,
              product_id, i.quantity, coalesce(m.taken, 0), coalesce(m.returned, 0))
  FROM orders o
  JOIN order_items i ON i.order_id = o.id
  FULL JOIN (SELECT order_id, product_id, -sum(delta) FILTER (WHERE reason = 'reserved') AS taken,
                    coalesce(sum(delta) FILTER (WHERE reason = 'returned'), 0) AS returned
               FROM stock_moves WHERE order_id IS NOT NULL GROUP BY order_id, product_id) m
       USING (order_id, product_id)
 WHERE i.quantity IS DISTINCT FROM m.taken
    OR m.returned <> CASE o.status WHEN 'canceled' THEN i.quantity ELSE 0 END""",
    ),
    by_query(
        "order-payments",
        "every payment that succeeded is one posting to the shop, and the other way round",
        checked="SELECT count(*) FROM order_payments",
        drifts="""
SELECT CASE WHEN p.id IS NULL THEN format('payment %s of order %s is not on the ledger',
                                          w.payment_id, w.order_id)
            ELSE format('posting %s pays no order', p.id) END
  FROM (SELECT p.*, o.items_total, o.currency, o.provider, o.user_id
          FROM order_payments p JOIN orders o ON o.id = p.order_id
         WHERE p.status = 'succeeded' AND o.items_total > 0) w
  FULL JOIN (SELECT * FROM postings WHERE kind = 'order_payment') p
    ON p.id = w.posting_id AND p.amount = w.items_total AND p.currency = w.currency
   AND p.debit_owner = CASE w.provider WHEN 'wallet' THEN 'user:' || w.user_id
                                       ELSE 'provider:' || w.provider END
 WHERE w.order_id IS NULL OR p.id IS NULL""",
    ),
    by_query(
        "payment-names",
        "the name of every payment that a provider made leads to its order",
        checked="SELECT count(*) FROM idempotency_keys WHERE operation = 'payment'",
        drifts="""
SELECT format('the name of payment %s leads to order %s, which has no such payment', k.key,
              k.resource_id)
  FROM idempotency_keys k
  LEFT JOIN order_payments p ON p.order_id = k.resource_id AND p.payment_id = k.key
 WHERE k.operation = 'payment' AND p.order_id IS NULL
UNION ALL
SELECT format('payment %s of order %s was made for order %s', p.payment_id, p.order_id,
              k.resource_id)
  FROM order_payments p
  JOIN idempotency_keys k ON k.operation = 'payment' AND k.key = p.payment_id
   AND k.resource_id <> p.order_id
 WHERE p.status = 'succeeded'""",
    ),
    by_query(
        "open-payments",
        "somebody is going to ask about every payment whose end is not known, and every refund",
        checked="SELECT count(*) FROM order_payments WHERE status = 'pending'",
        drifts="""
SELECT format('nobody is going to ask about the %s of payment %s of order %s', o.what,
              o.payment_id, o.order_id)
  FROM (SELECT order_id, payment_id, 'end' AS what FROM order_payments WHERE status = 'pending'
        UNION ALL
        SELECT order_id, payment_id, 'refund' FROM order_refunds WHERE status = 'requested') o
 WHERE NOT EXISTS (SELECT FROM outbox_queue q WHERE q.aggregate = 'order:' || o.order_id)
   AND NOT EXISTS (SELECT FROM dead_letters d WHERE d.aggregate = 'order:' || o.order_id
                                                AND d.resolved_at IS NULL)""",
    ),
    by_query(
        "order-refunds",
        "money that came in vain is asked back, and booked when it is returned",
        checked="SELECT count(*) FROM order_refunds",
        drifts="""
SELECT CASE WHEN r.order_id IS NULL THEN format('posting %s refunds no order', p.id)
            WHEN r.status = 'succeeded' THEN format('the refund of payment %s is not on the ledger',
                                                    r.payment_id)
            ELSE format('payment %s of order %s came in vain, and is not asked back',
                        r.payment_id, r.order_id) END
  FROM (SELECT p.order_id, p.payment_id, r.status, r.posting_id, o.items_total
          FROM order_payments p
          JOIN orders o ON o.id = p.order_id
          LEFT JOIN order_refunds r
            ON r.order_id = p.order_id AND r.payment_id = p.payment_id
         WHERE p.status = 'succeeded'
           AND (r.status IS NOT NULL OR o.status <> 'paid' OR o.payment_id <> p.payment_id)) r
  FULL JOIN (SELECT * FROM postings WHERE kind = 'order_refund') p
    ON p.id = r.posting_id AND p.amount = r.items_total
 WHERE r.order_id IS NULL OR r.status IS NULL
    OR (r.status = 'succeeded' AND p.id IS NULL AND r.items_total > 0)""",
    ),
    by_query(
        "paid-orders",
        "every paid order has its payment, and every open one is owed in the outbox",
        checked="SELECT count(*) FROM orders",
        drifts="""
SELECT format('order %s is %s, and nothing is going to happen to it', o.id, o.status)
  FROM orders o
 WHERE (o.status = 'paid' AND NOT EXISTS
         (SELECT FROM order_payments p WHERE p.order_id = o.id AND p.payment_id = o.payment_id
                                         AND p.status = 'succeeded'))
    OR (o.status IN ('reserved', 'payment_pending') AND NOT EXISTS
         (SELECT FROM outbox_queue q WHERE q.aggregate = 'order:' || o.id))""",
    ),
)
