-- The letter that a key waits for, and the number of letters behind it. This letter is the first
-- unresolved one that blocks the key; when none blocks it, the first unresolved one.
--
-- $1 text relay, $2 text aggregate type, $3 text aggregate id, $4 bigint letters to count at most
-- Columns: those of columns/letter.sql, last_failed_at text, behind int8 (exact up to $4),
--   next_attempt_in_seconds float8 null, is_hopeless bool (the letter can never be published
--   without an edit)
-- Rows: 0 or 1. Index: letter_unresolved_key. Locks: ACCESS SHARE.
SELECT l.* /* columns letter */,
       to_char(l.last_failed_at AT TIME ZONE 'UTC', 'YYYY-MM-DD"T"HH24:MI:SS.US"Z"') AS last_failed_at,
       date_part('epoch', l.next_attempt_at - clock_timestamp()) AS next_attempt_in_seconds,
       "postrider".is_hopeless(l.id, l.error_code, l.subject, l.dead_at) AS is_hopeless,
       (SELECT count(*) FROM (
            SELECT FROM "postrider".letter AS b
            WHERE b.relay = l.relay AND b.resolved_at IS NULL AND b.seq > l.seq
              AND hashtextextended(b.aggregate_id, 0) = hashtextextended(l.aggregate_id, 0)
              AND b.aggregate_type = l.aggregate_type AND b.aggregate_id = l.aggregate_id
            LIMIT $4::bigint) AS waiting) AS behind
FROM "postrider".letter AS l
WHERE l.relay = $1::text AND l.resolved_at IS NULL
  AND hashtextextended(l.aggregate_id, 0) = hashtextextended($3::text, 0)
  AND l.aggregate_type = $2::text AND l.aggregate_id = $3::text
ORDER BY l.holds DESC, l.seq
LIMIT 1
