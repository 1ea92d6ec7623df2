-- Unresolved dead letters, the newest first, page by page.
--
-- $1 text null     relay (null: all)
-- $2 timestamptz null, $3 bigint null  dead_at and id of the last row seen (null: from the newest)
-- $4 bigint        rows at most
-- Columns: id int8, relay text, state text, dead_at timestamptz, dead_at_text text (ISO 8601, UTC),
--   error_code text, error text, fingerprint text, attempts int4, holds bool, seq int8,
--   event_id uuid, event_type text, aggregate_type text null, aggregate_id text null,
--   occurred_at_text text, payload_size int8
-- Rows: 0 to $4. Index: letter_unresolved_dead backward. Locks: ACCESS SHARE.
SELECT l.id, l.relay, l.state, l.dead_at,
       to_char(l.dead_at AT TIME ZONE 'UTC', 'YYYY-MM-DD"T"HH24:MI:SS.US"Z"') AS dead_at_text,
       l.error_code, l.error, l.fingerprint, l.attempts, l.holds, l.seq, l.event_id,
       l.event_type, l.aggregate_type, l.aggregate_id, l.occurred_at::text AS occurred_at_text,
       l.payload_size
FROM "postrider".letter AS l
WHERE l.resolved_at IS NULL AND l.state = 'dead'
  AND ($1::text IS NULL OR l.relay = $1::text)
  AND (l.dead_at, l.id) < (coalesce($2::timestamptz, 'infinity'), coalesce($3::bigint, 0))
ORDER BY l.dead_at DESC, l.id DESC
LIMIT $4::bigint
