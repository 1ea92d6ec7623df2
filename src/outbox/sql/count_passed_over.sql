-- Counts the waiting events that a relay would not publish with another filter
-- (migrations/functions/passed_over.sql).
--
-- $1 text relay, $2 text null the other filter as JSON (null: everything)
-- Columns: passed_over int8 null (up to 10,000; null when the filter is the present one)
-- Rows: exactly one. Index: primary key. Locks: ACCESS SHARE.
SELECT "postrider".passed_over($1::text, $2::text::jsonb) AS passed_over
