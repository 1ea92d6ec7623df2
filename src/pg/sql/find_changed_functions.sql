-- Functions that differ from what `postrider migrate` has installed.
--
-- No parameters. Columns: signature text, change text (missing | altered | ungranted)
-- Rows: one for each such function. Index: none, it reads the functions of the schema. Locks: none.
-- Every name is qualified, because the role's `search_path` may have a schema before pg_catalog.
--
-- Ungranted: an existing role was granted the function at its installation, and may not execute it
-- now.
--
-- Digests made by another major version of Postgres are not compared. The next `postrider migrate`
-- makes them anew.
SELECT f.signature, CASE WHEN d.function IS NULL THEN 'missing'
                         WHEN is_altered THEN 'altered'
                         ELSE 'ungranted' END AS change
FROM "postrider".installed_function AS f
LEFT JOIN "postrider".function_digests() AS d ON d.signature OPERATOR(pg_catalog.=) f.signature
CROSS JOIN LATERAL (
    SELECT d.digest OPERATOR(pg_catalog.<>) f.digest
           AND f.postgres OPERATOR(pg_catalog.=)
               (pg_catalog.current_setting('server_version_num')::pg_catalog.int4
                OPERATOR(pg_catalog./) 10000) AS is_altered) AS compared
WHERE d.function IS NULL OR is_altered
   OR EXISTS (SELECT FROM pg_catalog.pg_roles AS r
              WHERE r.rolname OPERATOR(pg_catalog.=) ANY (f.roles::pg_catalog.name[])
                AND NOT pg_catalog.has_function_privilege(r.oid, d.function, 'EXECUTE'))
ORDER BY f.signature
