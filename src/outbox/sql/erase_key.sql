-- Erases the settled rows and resolved letters of one key: one batch, with an audit row
-- (migrations/functions/operator_erase.sql). Other rows and letters of the key are counted and
-- left.
--
-- $1 text relay to name in the audit, $2 text aggregate type, $3 text aggregate id, $4 bigint seq
-- after which the batch begins, $5 bigint rows at most, $6 text actor, $7 text reason
-- Columns: rows_erased int8, rows_left int8, letters_erased int8, letters_left int8, next int8 null
--   (the seq after which the next batch begins; null: this was the last)
-- Rows: exactly one. Index: primary key of each leaf; reads all letters. Locks: the erased rows.
SELECT e.rows_erased, e.rows_left, e.letters_erased, e.letters_left, e.next
FROM "postrider".operator_erase(
    $1::text, $2::text, $3::text, $4::bigint, $5::bigint, $6::text, $7::text) AS e
