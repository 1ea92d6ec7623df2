-- A page of the letters that block their keys: the later events of such a key have to wait.
--
-- A dead letter blocks its key unless its route skips dead letters. A letter with a mark blocks its
-- key whatever its state, because the relay has still to load that key. A key with held letters has
-- at least one letter of these two kinds, so a million held letters are not read here.
--
-- The pages go by id, which never changes. An operator may change a letter between two pages: it
-- keeps its place, and it keeps blocking, because each act on a letter sets its mark. Only the
-- relay that reads these pages clears a mark.
--
-- $1 text relay, $2 bigint id of the last letter of the page before (0: from the first)
-- $3 bigint letters at most
-- Columns: id int8, aggregate_type text null, aggregate_id text null
-- Rows: 0 to $3, in the order of id. Index: letter_blocking. Locks: ACCESS SHARE.
SELECT l.id, l.aggregate_type, l.aggregate_id
FROM "postrider".letter AS l
WHERE l.relay = $1::text AND l.id > $2::bigint
  AND (l.next_attempt_at IS NOT NULL
       OR l.state = 'dead' AND l.holds AND l.resolved_at IS NULL)
ORDER BY l.id
LIMIT $3::bigint
