-- When one letter died: where a page of dead_letters.sql goes on.
--
-- $1 bigint id
-- Columns: dead_at timestamptz
-- Rows: 0 or 1. Index: primary key. Locks: ACCESS SHARE.
SELECT l.dead_at FROM "postrider".letter AS l WHERE l.id = $1::bigint AND l.dead_at IS NOT NULL
