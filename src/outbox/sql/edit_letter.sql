-- Changes a dead letter in place under a new event id, with an audit row. On request the letter is
-- redriven at once (migrations/functions/operator_edit.sql).
--
-- $1 text the edit as a JSON object, $2 text null payload as JSON, $3 bytea null payload as bytes,
-- $4 text actor, $5 text null reason, $6 text channel that wakes the relay
-- Columns: event_id uuid null (the new id; null: the letter is not dead any more, or was edited
--   meanwhile)
-- Rows: exactly one. Index: primary key of letter and of one leaf of the outbox. Locks: the
--   letter's row.
SELECT "postrider".operator_edit(
    $1::text::jsonb, $2::text, $3::bytea, $4::text, $5::text, $6::text) AS event_id
