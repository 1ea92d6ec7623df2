-- Reads the columns by which lists of letters are sorted, of one letter. A page begins after these
-- values of the last letter of the page before.
--
-- $1 bigint id
-- Columns: dead_at timestamptz null, seq int8
-- Rows: 0 or 1. Index: primary key. Locks: ACCESS SHARE.
SELECT l.dead_at, l.seq FROM "postrider".letter AS l WHERE l.id = $1::bigint
