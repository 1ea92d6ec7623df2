-- Polls the outbox: the current snapshot, and the new rows up to it when there are no more than one
-- page has. This is one round trip, for a P at which no transaction was open, so that none can be
-- late (poll_outbox_late.sql).
--
-- C is this statement's own snapshot, so the statement sees exactly the rows that are visible in C.
-- Rows from another cluster are an exception: their numbers are beyond those of this one.
--
-- The new rows are found by transaction: all that ended since P have numbers from xmax(P) on. By
-- seq (read_page.sql) each poll would read all rows since the floor, which moves only with a
-- settlement. The rows come unsorted, because sorting them here would need memory for all. One row
-- more than a page has means that there are too many: read_page.sql reads these.
--
-- $1 text    P, the settled snapshot, without open transactions
-- $2 bigint  rows at most: one more than a page has
-- $3 integer bytes of one payload at most that comes along
-- Columns: those of columns/event.sql, of which the first row has none but
--   event_type text (C, pg_snapshot as text)
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
