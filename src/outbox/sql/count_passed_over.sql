-- Counts the waiting events that a relay takes by its present filter and would leave out by a new
-- filter (migrations/functions/passed_over.sql).
--
-- $1 text relay, $2 text null the new filter as JSON (null: everything)
-- Columns: counted int8 (of the first 1,000 that wait), is_all bool (no more than these wait)
-- Rows: 1, or 0 when the filter is the present one, or the relay has no filter and has settled
--   nothing. Index: primary key. Locks: ACCESS SHARE.
SELECT p.counted, p.is_all FROM "postrider".passed_over($1::text, $2::text::jsonb) AS p
