-- Erases the stored data of one key: one batch, with its audit row
-- (migrations/functions/operator_erase.sql).
--
-- $1 to $7 as the function's
-- Columns: rows_erased int8, rows_left int8, letters_erased int8, letters_left int8,
--   next int8 null (the seq after which the next batch begins; null: this was the last)
-- Rows: exactly one. Index: primary key of each leaf; reads all letters.
-- Locks: the rows that go.
SELECT e.rows_erased, e.rows_left, e.letters_erased, e.letters_left, e.next
FROM "postrider".operator_erase(
    $1::text, $2::text, $3::text, $4::bigint, $5::bigint, $6::text, $7::text) AS e
