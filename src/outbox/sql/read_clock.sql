-- The database's clock, by which letters die.
--
-- No parameters.
-- Columns: now timestamptz
-- Rows: exactly one. Locks: none; reads no table.
SELECT clock_timestamp() AS now
