-- Makes the relay try letters again: one batch of the chosen ones, with an audit row for each
-- (migrations/functions/operator_redrive.sql).
--
-- $1 text the choice as a JSON object, $2 timestamptz null earliest time of death, $3 timestamptz
-- null latest time of death, $4 text actor, $5 text null reason, $6 text channel that wakes the
-- relay
-- Columns: ids int8[] (of the letters redriven), last_seq int8 null (seq of the last of them, after
--   which the next batch begins)
-- Rows: exactly one. Index: letter_unresolved_state; letter_unresolved_key for a key, the primary
--   key for ids.
-- Locks: the letters' rows, in the order of their seq.
SELECT r.ids, r.last_seq
FROM "postrider".operator_redrive(
    $1::text::jsonb || jsonb_build_object('since', $2::timestamptz, 'until', $3::timestamptz),
    $4::text, $5::text, $6::text) AS r
