-- The current snapshot alone, for when polls take too long (poll_outbox.sql). A poll also reads the
-- rows of open transactions, which may be millions. Pages can be made smaller until one is read in
-- time.
--
-- Columns: snapshot text (C, pg_snapshot as text)
-- Rows: exactly one. Locks: none.
SELECT pg_current_snapshot()::text AS snapshot
