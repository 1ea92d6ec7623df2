-- What became of some letters: why they cannot be acted on.
--
-- $1 bigint[] ids
-- Columns: id int8, relay text, state text, resolution text null, resolved_by text null
-- Rows: 0 to as many as there are ids. Index: primary key. Locks: ACCESS SHARE.
SELECT l.id, l.relay, l.state, l.resolution, l.resolved_by
FROM "postrider".letter AS l
WHERE l.id = ANY ($1::bigint[])
