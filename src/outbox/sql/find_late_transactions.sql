-- The late transactions of a span. read_page_late.sql reads their rows; without late transactions
-- read_page.sql is used.
--
-- A late transaction was open when the position was taken (its number is in the xip of P), has
-- ended and has rows. Its rows may have any seq, so they are found by transaction. Transactions
-- that ended after the span's end are returned too, and read_page_late.sql leaves them out.
--
-- $1 text  P, the settled snapshot (pg_snapshot as text)
-- Columns: late text null (the late transactions as an xid8[] literal, pass it on unread)
-- Rows: exactly one. Index: outbox_tx_seq, one probe a leaf for each number in xip(P) that ended.
-- The ORDER BY names both columns of that index, so no statistics can choose another one.
-- Locks: ACCESS SHARE.
SELECT (SELECT array_agg(x.tx)::text
        FROM pg_snapshot_xip((SELECT $1::text::pg_snapshot)) AS x (tx)
        WHERE pg_visible_in_snapshot(x.tx, c.snapshot)
          AND (SELECT true FROM "postrider".outbox AS o
               WHERE o.tx >= x.tx AND o.tx <= x.tx
               ORDER BY o.tx, o.seq LIMIT 1)) AS late
FROM (SELECT pg_current_snapshot() AS snapshot OFFSET 0) AS c
