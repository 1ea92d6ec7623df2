-- Runs retention. New rows of the outbox go to one pair of partitions, a turn, at a time. This
-- statement seals a turn whose rows are all settled, empties it when it has been sealed for the
-- retention, and directs new rows to the next turn. Call it about once a minute, in a separate
-- transaction (READ COMMITTED); on an idle outbox once an hour is enough.
--
-- $1 float8 retention in seconds
-- Columns: sealed int4, emptied int4 (turns), rows_at_most int8 (an upper bound of the deleted
--   rows), rotated bool (new rows go to another turn now)
-- Rows: exactly one. Index: those of the leaves, above the positions only. Locks: SHARE or ACCESS
--   EXCLUSIVE on leaves that get no new rows, without waiting; until commit.
SELECT r.sealed, r.emptied, r.rows_at_most, r.rotated
FROM "postrider".retain(make_interval(secs => $1::float8)) AS r
