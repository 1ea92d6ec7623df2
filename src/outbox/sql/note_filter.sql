-- Stores the filter of this relay (migrations/functions/note_filter.sql).
--
-- $1 text relay, $2 bigint term, $3 text null the filter as JSON (null: everything), $4 bigint null
-- number of waiting events that the new filter leaves out (null: not counted)
-- Columns: changed bool (another filter was stored before)
-- Rows: exactly one. Index: primary key. Locks: the position's row, when there is a change.
SELECT "postrider".note_filter($1::text, $2::bigint, $3::text::jsonb, $4::bigint) AS changed
