-- Retention: seals, empties and rotates the turns that are due. Call it about once a minute, in a
-- transaction of its own (READ COMMITTED); on an idle outbox once an hour will do.
--
-- $1 float8 retention in seconds
-- Columns: sealed int4, emptied int4 (turns), rows_at_most int8 (an upper bound of the rows that
--   went), rotated bool (new rows go to another turn now)
-- Rows: exactly one. Index: those of the leaves, above the positions only.
-- Locks: SHARE or ACCESS EXCLUSIVE on leaves that get no new rows, without waiting; until commit.
SELECT r.sealed, r.emptied, r.rows_at_most, r.rotated
FROM "postrider".retain(make_interval(secs => $1::float8)) AS r
