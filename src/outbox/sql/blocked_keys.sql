-- The keys whose later events have to wait, because a letter of theirs is not resolved.
--
-- $1 text relay
-- Columns: aggregate_type text, aggregate_id text
-- Rows: one a blocked key. Index: letter_unresolved_key. Locks: ACCESS SHARE.
SELECT DISTINCT l.aggregate_type, l.aggregate_id
FROM "postrider".letter AS l
WHERE l.relay = $1::text AND l.resolved_at IS NULL AND l.holds AND l.aggregate_type IS NOT NULL
