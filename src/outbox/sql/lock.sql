-- Takes the right to run one relay, for as long as this session lives.
--
-- $1 text relay
-- Columns: locked bool (false: somebody else has it, see lock_holder.sql)
-- Rows: exactly one. Locks: a session-level advisory lock; reads no table.
SELECT pg_try_advisory_lock(hashtextextended('"postrider" relay ' || $1::text, 0)) AS locked
