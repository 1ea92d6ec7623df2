-- The state of some letters. It says why an action of an operator cannot change them.
--
-- $1 bigint[] ids
-- Columns: id int8, relay text, state text, resolution text null, resolved_by text null, error_code
--   text, is_hopeless bool (the letter can never be published without an edit)
-- Rows: 0 to as many as there are ids. Index: primary key. Locks: ACCESS SHARE.
SELECT l.id, l.relay, l.state, l.resolution, l.resolved_by, l.error_code,
       "postrider".is_hopeless(l.id, l.error_code, l.subject, l.dead_at) AS is_hopeless
FROM "postrider".letter AS l
WHERE l.id = ANY ($1::bigint[])
