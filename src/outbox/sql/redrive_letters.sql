-- Has letters tried again: one batch, with its rows of the audit (migrations/functions/operator_redrive.sql).
--
-- $1 to $16 as the function's
-- Columns: ids int8[] (of the letters that this changed), last_seq int8 null (of the last one)
-- Rows: exactly one. Index: as count_chosen_letters.sql, then the primary key.
-- Locks: the letters' rows, in the order of their seq.
SELECT r.ids, r.last_seq
FROM "postrider".operator_redrive(
    $1::text, $2::text, $3::text, $4::text, $5::text, $6::text, $7::timestamptz, $8::timestamptz,
    $9::bigint[], $10::bigint, $11::bigint, $12::text, $13::text, $14::text, $15::text,
    $16::boolean) AS r
