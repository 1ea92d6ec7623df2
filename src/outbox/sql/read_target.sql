-- Where the reader may go next, and nothing else: for when looks take too long (poll_outbox.sql). A
-- look goes over the rows of transactions that are open too, and somebody may be writing millions
-- of them; pages can be made smaller until one is read in time.
--
-- Columns: snapshot text (C, pg_snapshot as text)
-- Rows: exactly one. Locks: none.
SELECT pg_current_snapshot()::text AS snapshot
