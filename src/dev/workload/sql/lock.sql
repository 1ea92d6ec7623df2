-- Locks the keys of one transaction in the order of the array, until it ends.
-- Parameters: the class of the locks, the keys. One row.
SELECT count(pg_advisory_xact_lock($1::int4, key))
FROM unnest($2::int4[]) AS key
