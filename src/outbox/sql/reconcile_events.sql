-- Makes letters of events that the stream should contain and does not, so that the relay publishes
-- them again: one batch (migrations/functions/operator_reconcile.sql).
--
-- $1 text relay, $2 bigint[] seqs, $3 bigint payload bytes at most: a larger payload stays in the
-- outbox, $4 text actor, $5 text channel that wakes the relay
-- Columns: letters int8 (that are tried now)
-- Rows: exactly one. Index: primary key of each leaf, letter_once. Locks: the letters' rows.
SELECT "postrider".operator_reconcile($1::text, $2::bigint[], $3::bigint, $4::text, $5::text)
    AS letters
