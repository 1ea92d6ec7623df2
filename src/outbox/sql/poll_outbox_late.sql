-- Polls the outbox in one round trip, as poll_outbox.sql does, for a settled snapshot P at which
-- transactions were open. Returns also the rows of those transactions that have ended since (late
-- rows).
--
-- Late rows are also found by transaction number. Their numbers are below xmax(P), so no row comes
-- twice. The conditions are those of find_late_transactions.sql and read_page_late.sql, in one
-- statement.
--
-- $1 text    P, the settled snapshot
-- $2 bigint  rows at most: one more than a page has
-- $3 integer bytes of one payload at most that comes along
-- Columns: those of columns/event.sql. The first row has only event_type text (C, the current
--   snapshot as text), and null in the other columns.
-- Rows: 1 to $2 + 1; the first has no seq, the others are in no order. Index: outbox_tx_seq, one
--   probe a leaf for each number in xip(P) that ended, and a range for the rest. Locks: ACCESS
--   SHARE.
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
    SELECT r.*
    FROM (
        SELECT l.*
        FROM "postrider".outbox AS l
        WHERE l.tx = ANY (ARRAY(
            SELECT x.tx
            FROM pg_snapshot_xip((SELECT $1::text::pg_snapshot)) AS x (tx)
            WHERE pg_visible_in_snapshot(x.tx, (SELECT pg_current_snapshot()))))
          AND true /* filter l */
        UNION ALL
        SELECT n.*
        FROM "postrider".outbox AS n
        WHERE n.tx >= (SELECT pg_snapshot_xmax($1::text::pg_snapshot))
          AND n.tx < (SELECT pg_snapshot_xmax(pg_current_snapshot()))
          AND true /* filter n */
    ) AS r
    LIMIT $2::bigint
) AS o)
