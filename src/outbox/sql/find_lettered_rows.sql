-- Letters of rows that the position has not passed. After a healing has put the position back,
-- these rows are read again.
--
-- $1 text relay
-- Columns: seq int8
-- Rows: one a letter. Index: none, it reads all letters of the relay; asked for only after a
--   healing.
-- Locks: ACCESS SHARE.
SELECT l.seq
FROM "postrider".letter AS l
JOIN "postrider".position AS p ON p.relay = l.relay
WHERE l.relay = $1::text
  AND NOT pg_visible_in_snapshot(l.tx, p.snapshot)
  AND NOT (l.seq <= p.bookmark AND pg_visible_in_snapshot(l.tx, p.target))
