-- The place after which a page of letters goes on, from the id of its predecessor.
--
-- $1 bigint id
-- Columns: dead_at timestamptz null, seq int8
-- Rows: 0 or 1. Index: primary key. Locks: ACCESS SHARE.
SELECT l.dead_at, l.seq FROM "postrider".letter AS l WHERE l.id = $1::bigint
