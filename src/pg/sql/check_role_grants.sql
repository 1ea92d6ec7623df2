-- Tests whether the record of installed functions (table `installed_function`) can be compared with
-- the catalog. The record must be of this major version of Postgres. Each role of Postrider that
-- exists must have been granted some functions: a role that was created later has none.
--
-- No parameters. Columns: bool. Rows: exactly one. Locks: none.
SELECT to_regprocedure('"postrider".function_digests()') IS NOT NULL
    AND NOT EXISTS (
        SELECT FROM "postrider".installed_function AS f
        WHERE f.postgres <> current_setting('server_version_num')::integer / 10000)
    AND NOT EXISTS (
        SELECT FROM pg_roles AS r
        WHERE r.rolname IN ('postrider_producer', 'postrider_consumer', 'postrider_relay',
                            'postrider_operator')
          AND NOT EXISTS (SELECT FROM "postrider".installed_function AS f
                          WHERE r.rolname = ANY (f.roles)))
