-- Draws the transaction's id, returns it, and locks the keys of the array, in its order, until the
-- transaction ends. Parameters: the class of the locks, the keys. One row.
SELECT
    pg_current_xact_id()::text,
    (SELECT count(pg_advisory_xact_lock($1::int4, key)) FROM unnest($2::int4[]) AS key)
