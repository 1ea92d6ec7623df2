-- Changes a dead letter in place under a new event id, with its row of the audit; on request it is
-- redriven at once (migrations/functions/operator_edit.sql).
--
-- $1 to $14 as the function's
-- Columns: event_id uuid null (the new one; null: it is not dead any more or was edited meanwhile)
-- Rows: exactly one. Index: primary key; of the outbox that of one leaf. Locks: the letter's row.
SELECT "postrider".operator_edit(
    $1::text, $2::bigint, $3::uuid, $4::text, $5::text, $6::text, $7::boolean, $8::text, $9::bytea,
    $10::boolean, $11::text, $12::text, $13::text, $14::bigint) AS event_id
