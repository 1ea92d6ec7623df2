-- Makes the relay try letters again: one batch, with its audit rows
-- (migrations/functions/operator_redrive.sql).
--
-- $1 text the choice as a JSON object, $2 timestamptz null and $3 timestamptz null its `since` and
-- `until`, $4 text actor, $5 text null reason, $6 text channel
-- Columns: ids int8[] (of the letters that this changed), last_seq int8 null (of the last one)
-- Rows: exactly one. Index: as count_chosen_letters.sql, then the primary key.
-- Locks: the letters' rows, in the order of their seq.
SELECT r.ids, r.last_seq
FROM "postrider".operator_redrive(
    $1::text::jsonb || jsonb_build_object('since', $2::timestamptz, 'until', $3::timestamptz),
    $4::text, $5::text, $6::text) AS r
