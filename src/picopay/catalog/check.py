"""What must hold of stock: it is proved like money, move by move."""

from typing import Final

from picopay.infra.checks import by_query

INVARIANTS: Final = (
    by_query(
        "stock",
        "every product's stock and version are what its moves make them",
        checked="SELECT count(*) FROM products",
        drifts="""
SELECT CASE WHEN p.id IS NULL THEN format('product %s is missing, it has %s moves', m.id, m.moves)
            WHEN p.stock <> coalesce(m.stock, 0)
            THEN format('product %s: stock is %s, its moves sum to %s',
                        p.id, p.stock, coalesce(m.stock, 0))
            ELSE format('product %s: version is %s, it has %s moves',
                        p.id, p.version, coalesce(m.moves, 0)) END
  FROM products p
  FULL JOIN (SELECT product_id AS id, count(*) AS moves, sum(delta) AS stock
               FROM stock_moves GROUP BY product_id) m ON m.id = p.id
 WHERE p.id IS NULL OR p.stock <> coalesce(m.stock, 0) OR p.version <> coalesce(m.moves, 0)""",
    ),
    by_query(
        "stock-moves",
        "every move of stock follows another, and tells the stock after it",
        checked="SELECT count(*) FROM stock_moves",
        drifts="""
SELECT CASE WHEN version <> place
            THEN format('product %s: move %s leaves a gap before it', product_id, version)
            ELSE format('product %s: move %s tells a stock of %s, it was %s',
                        product_id, version, stock_after, replayed) END
  FROM (SELECT product_id, version, stock_after,
               row_number() OVER history AS place, sum(delta) OVER history AS replayed
          FROM stock_moves
        WINDOW history AS (PARTITION BY product_id ORDER BY version ROWS UNBOUNDED PRECEDING)) m
 WHERE version <> place OR stock_after <> replayed""",
    ),
    by_query(
        "stock-history",
        "the app's role cannot change or remove a move of stock",
        checked="SELECT 1",
        drifts="""
SELECT format('picopay_app may %s stock_moves', privilege)
  FROM unnest(ARRAY['UPDATE', 'DELETE', 'TRUNCATE']) AS privilege
 WHERE has_table_privilege('picopay_app', 'stock_moves', privilege)""",
    ),
)
