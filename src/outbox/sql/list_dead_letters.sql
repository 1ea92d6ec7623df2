-- Unresolved dead letters, the newest first, page by page.
--
-- $1 text relay; each of the next, when not null, narrows the choice: $2 text event type,
-- $3 and $4 text aggregate type and id, $5 text error code, $6 text fingerprint,
-- $7 timestamptz earliest time of death,
-- $8 timestamptz null, $9 bigint null  dead_at and id of the last row seen (null: from the newest)
-- $10 bigint rows at most
-- Columns: those of columns/letter.sql
-- Rows: 0 to $10. Index: letter_unresolved_dead backward; letter_unresolved_key for a key.
-- Locks: ACCESS SHARE.
SELECT l.* /* columns letter */
FROM "postrider".letter AS l
WHERE l.relay = $1::text AND l.resolved_at IS NULL
  -- The first condition on the state cannot use an index. The second one can, unless there is a
  -- key. So only one index fits, and the planner needs no statistics to choose it.
  AND (l.state = 'dead') IS TRUE AND ($4::text IS NOT NULL OR l.state = 'dead')
  AND ($2::text IS NULL OR l.event_type = $2::text)
  AND ($4::text IS NULL
       OR hashtextextended(l.aggregate_id, 0) = hashtextextended($4::text, 0)
          AND l.aggregate_type = $3::text AND l.aggregate_id = $4::text)
  AND ($5::text IS NULL OR l.error_code = $5::text)
  AND ($6::text IS NULL OR l.fingerprint = $6::text)
  AND ($7::timestamptz IS NULL OR l.dead_at >= $7::timestamptz)
  AND ($8::timestamptz IS NULL OR (l.dead_at, l.id) < ($8::timestamptz, $9::bigint))
ORDER BY l.dead_at DESC, l.id DESC
LIMIT $10::bigint
