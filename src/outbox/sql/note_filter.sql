-- Writes down what this relay takes (migrations/functions/note_filter.sql).
--
-- $1 text relay, $2 bigint term, $3 text null the filter as JSON (null: everything)
-- Columns: passed_over int8 null (events that waited and are passed over, up to 10,000; null when it
--   took the same before)
-- Rows: exactly one. Index: primary key. Locks: the position's row, when there is a change.
SELECT "postrider".note_filter($1::text, $2::bigint, $3::text::jsonb) AS passed_over
