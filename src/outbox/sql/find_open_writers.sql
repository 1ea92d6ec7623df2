-- Transactions that have inserted into the outbox and are still open. A transaction that read the
-- wake-up gate before it was opened will not notify. After open_gate.sql, poll until none of these
-- transactions is left.
--
-- No parameters.
-- Columns: writers int8
-- Rows: exactly one. Locks: none; reads pg_locks (prepared transactions count).
SELECT count(*) AS writers
FROM pg_locks AS l
WHERE l.locktype = 'relation'
  AND l.database = (SELECT oid FROM pg_database WHERE datname = current_database())
  AND l.relation = '"postrider".outbox'::regclass
  AND l.mode = 'RowExclusiveLock' AND l.granted
  AND l.pid IS DISTINCT FROM pg_backend_pid()
