-- The first letters that an action would change, in ascending order of seq.
--
-- $1 text relay; each of the next, when not null, narrows the choice: $2 text event type,
-- $3 and $4 text aggregate type and id, $5 text error code, $6 text fingerprint,
-- $7 timestamptz earliest time of death, $8 timestamptz latest time of death, $9 bigint[] ids,
-- $10 text state, $11 boolean also letters that can never be published without an edit, $12 bigint
-- rows at most
-- Columns: those of columns/letter.sql
-- Rows: 0 to $12. Index: letter_unresolved_state; letter_unresolved_key for a key, the primary key
--   for ids. Locks: ACCESS SHARE.
SELECT l.* /* columns letter */
FROM "postrider".letter AS l
WHERE (l.relay = $1::text) IS TRUE AND (l.state = $10::text) IS TRUE AND l.resolved_at IS NULL
  -- The conditions on relay and state above cannot use an index. Here they can: relay and state
  -- unless there are ids, state unless there is a key. So only one index fits, and the planner
  -- needs no statistics to choose it.
  AND ($9::bigint[] IS NOT NULL OR l.relay = $1::text)
  AND ($9::bigint[] IS NOT NULL OR $4::text IS NOT NULL OR l.state = $10::text)
  AND ($2::text IS NULL OR l.event_type = $2::text)
  AND ($4::text IS NULL
       OR hashtextextended(l.aggregate_id, 0) = hashtextextended($4::text, 0)
          AND l.aggregate_type = $3::text AND l.aggregate_id = $4::text)
  AND ($5::text IS NULL OR l.error_code = $5::text)
  AND ($6::text IS NULL OR l.fingerprint = $6::text)
  AND ($7::timestamptz IS NULL OR l.dead_at >= $7::timestamptz)
  AND ($8::timestamptz IS NULL OR l.dead_at <= $8::timestamptz)
  AND ($9::bigint[] IS NULL OR l.id = ANY ($9::bigint[]))
  AND ($11::boolean OR NOT "postrider".is_hopeless(l.id, l.error_code, l.subject, l.dead_at))
ORDER BY l.seq
LIMIT $12::bigint
