-- The database's clock, which gives letters their times.
--
-- No parameters.
-- Columns: now timestamptz
-- Rows: exactly one. Locks: none; reads no table.
SELECT clock_timestamp() AS now
