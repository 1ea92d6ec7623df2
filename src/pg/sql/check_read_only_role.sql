-- Tests whether a writable server has a role or a database that is set to read only. A server that
-- is read only as a whole may be a primary that an operator has fenced.
--
-- No parameters. Columns: bool. Rows: exactly one. Locks: none. Settings of the role are in force,
-- a schema before pg_catalog too.
SELECT NOT pg_catalog.pg_is_in_recovery() AND EXISTS (
    SELECT FROM pg_catalog.pg_settings AS s
    WHERE s.name OPERATOR(pg_catalog.=) 'default_transaction_read_only'
      AND s.source OPERATOR(pg_catalog.=)
          ANY (ARRAY['database', 'user', 'database user']::pg_catalog.text[])) AS is_by_role
