-- Requests that a relay which waits for an operator accepts the stream as it is
-- (migrations/functions/operator_heal.sql).
--
-- $1 text relay, $2 text actor, $3 text channel that wakes the relay
-- Columns: is_asked bool (false: the relay does not wait for an operator, and nothing was done)
-- Rows: exactly one. Index: primary key. Locks: the position's row.
SELECT "postrider".operator_heal($1::text, $2::text, $3::text) AS is_asked
