-- Reads the current snapshot alone, for a relay whose polls (poll_outbox.sql) take too long. A poll
-- also reads the rows of open transactions, which may be millions. Without a poll, pages are read
-- up to this snapshot, and can be made smaller until one is read in time.
--
-- Columns: snapshot text (C, pg_snapshot as text)
-- Rows: exactly one. Locks: none.
SELECT pg_current_snapshot()::text AS snapshot
