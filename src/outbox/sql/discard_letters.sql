-- Gives dead letters up for good: one batch, with its rows of the audit
-- (migrations/functions/operator_discard.sql).
--
-- $1 to $6 as in redrive_letters.sql
-- Columns: ids int8[] (of the letters that this changed), last_seq int8 null (of the last one)
-- Rows: exactly one. Index: as count_chosen_letters.sql, then the primary key.
-- Locks: the letters' rows, in the order of their seq.
SELECT r.ids, r.last_seq
FROM "postrider".operator_discard(
    $1::text::jsonb || jsonb_build_object('since', $2::timestamptz, 'until', $3::timestamptz),
    $4::text, $5::text, $6::text) AS r
