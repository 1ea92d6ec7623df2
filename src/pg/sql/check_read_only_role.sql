-- Tests whether a server refuses writes only because `default_transaction_read_only` is set for
-- this session's role or database. The answer is false when the whole server is read only: an
-- operator may have fenced a former primary that way.
--
-- No parameters. Columns: bool. Rows: exactly one. Locks: none. Every name is qualified, because
-- the role's `search_path` may have a schema before pg_catalog.
SELECT NOT pg_catalog.pg_is_in_recovery() AND EXISTS (
    SELECT FROM pg_catalog.pg_settings AS s
    WHERE s.name OPERATOR(pg_catalog.=) 'default_transaction_read_only'
      AND s.source OPERATOR(pg_catalog.=)
          ANY (ARRAY['database', 'user', 'database user']::pg_catalog.text[])) AS is_by_role
