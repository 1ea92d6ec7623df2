-- Records the functions of the catalog in a setting of the transaction, before their files run. A
-- catalog entry that a file writes anew changes its place. This begins the replacement of all
-- functions.
--
-- Locks: none.
SET LOCAL lock_timeout = '5s';
SET LOCAL search_path = pg_catalog, pg_temp;
SELECT pg_catalog.set_config('postrider.functions_before', coalesce((
    SELECT pg_catalog.string_agg(pg_catalog.format('%s %s', p.oid, p.ctid), ';')
    FROM pg_catalog.pg_proc AS p
    WHERE p.pronamespace = '"postrider"'::pg_catalog.regnamespace), ''), true);
