-- All columns of one letter except its payload.
--
-- $1 bigint id, $2 bigint letters to count at most
-- Columns: those of columns/letter.sql, and last_failed_at text, occurred_at text, replaces uuid
--   null, resolution text null, resolved_by text null, resolved_at text null, reason text null,
--   stream_seq int8 null, payload_omitted bool, event_version int4, kind text, aggregate_version
--   int8 null, source text null, subject text null, content_type text, headers text, correlation_id
--   text null, causation_id text null, actor text null, behind int8 (unresolved later letters of
--   its key, exact up to $2), behind_of int8 null (the first unresolved letter of its key that it
--   waits behind)
-- Rows: 0 or 1. Index: primary key, letter_unresolved_key. Locks: ACCESS SHARE.
SELECT l.* /* columns letter */,
       to_char(l.last_failed_at AT TIME ZONE 'UTC', 'YYYY-MM-DD"T"HH24:MI:SS.US"Z"') AS last_failed_at,
       CASE WHEN isfinite(l.occurred_at)
            THEN to_char(l.occurred_at AT TIME ZONE 'UTC', 'YYYY-MM-DD"T"HH24:MI:SS.US"Z"')
            ELSE l.occurred_at::text END AS occurred_at,
       l.replaces, l.resolution, l.resolved_by,
       to_char(l.resolved_at AT TIME ZONE 'UTC', 'YYYY-MM-DD"T"HH24:MI:SS.US"Z"') AS resolved_at,
       l.reason, l.stream_seq, l.payload_omitted, l.event_version, l.kind, l.aggregate_version,
       l.source, l.subject, l.content_type, l.headers::text AS headers, l.correlation_id,
       l.causation_id, l.actor,
       (SELECT count(*) FROM (
            SELECT FROM "postrider".letter AS b
            WHERE b.relay = l.relay AND b.resolved_at IS NULL AND b.seq > l.seq
              AND hashtextextended(b.aggregate_id, 0) = hashtextextended(l.aggregate_id, 0)
              AND b.aggregate_type = l.aggregate_type AND b.aggregate_id = l.aggregate_id
              AND l.holds AND l.resolved_at IS NULL
            LIMIT $2::bigint) AS waiting) AS behind,
       (SELECT b.id
        FROM "postrider".letter AS b
        WHERE b.relay = l.relay AND b.resolved_at IS NULL AND b.seq < l.seq AND b.holds
          AND hashtextextended(b.aggregate_id, 0) = hashtextextended(l.aggregate_id, 0)
          AND b.aggregate_type = l.aggregate_type AND b.aggregate_id = l.aggregate_id
          AND l.resolved_at IS NULL
        ORDER BY b.seq LIMIT 1) AS behind_of
FROM "postrider".letter AS l
WHERE l.id = $1::bigint
