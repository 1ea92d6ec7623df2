-- Polls the outbox in one round trip. Returns the current snapshot C, and the rows that became
-- visible since the settled snapshot P when they fit into one page. At P no transaction was open,
-- so no transaction can be late; poll_outbox_late.sql is for any other P.
--
-- C is this statement's own snapshot, so the statement sees exactly the rows that are visible in C.
-- Rows from another cluster are an exception: their transaction numbers are beyond those of this
-- cluster.
--
-- The new rows are found by transaction number: all transactions that ended since P have numbers
-- from xmax(P) on. By seq (read_page.sql) each poll would read all rows since the floor, which
-- moves only with a settlement. The rows come unsorted, because sorting them here would need memory
-- for all. When one row more than a page has comes, the new rows are too many: read_page.sql reads
-- them.
--
-- $1 text    P, the settled snapshot, without open transactions
-- $2 bigint  rows at most: one more than a page has
-- $3 integer bytes of one payload at most that comes along
-- Columns: those of columns/event.sql. The first row has only event_type text (C, pg_snapshot as
--   text), and null in the other columns.
-- Rows: 1 to $2 + 1; the first has no seq, the others are in no order. Index: outbox_tx_seq.
-- Locks: ACCESS SHARE.
SELECT NULL::bigint AS seq, NULL::uuid AS event_id, NULL::timestamptz AS occurred_at,
       pg_current_snapshot()::text AS event_type, NULL::integer AS event_version,
       NULL::text AS kind, NULL::text AS aggregate_type, NULL::text AS aggregate_id,
       NULL::bigint AS aggregate_version, NULL::text AS source, NULL::text AS subject,
       NULL::text AS content_type, NULL::text AS headers, NULL::text AS correlation_id,
       NULL::text AS causation_id, NULL::text AS actor, NULL::integer AS payload_size,
       NULL::json AS payload, NULL::bytea AS payload_binary
UNION ALL
(SELECT o.* /* columns event $3::integer */
FROM (
    SELECT n.*
    FROM "postrider".outbox AS n
    WHERE n.tx >= (SELECT pg_snapshot_xmax($1::text::pg_snapshot))
      AND n.tx < (SELECT pg_snapshot_xmax(pg_current_snapshot()))
      AND true /* filter n */
    LIMIT $2::bigint
) AS o)
