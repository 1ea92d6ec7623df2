-- Stores the place (oid and ctid) of every function of the schema in a setting of the transaction.
-- A function file that runs after this statement gives its function another ctid. So
-- record_functions.sql can see which functions were replaced. This is the first statement when
-- `postrider migrate` replaces all functions.
--
-- Locks: none.
SET LOCAL lock_timeout = '5s';
SET LOCAL search_path = pg_catalog, pg_temp;
SELECT pg_catalog.set_config('postrider.functions_before', coalesce((
    SELECT pg_catalog.string_agg(pg_catalog.format('%s %s', p.oid, p.ctid), ';')
    FROM pg_catalog.pg_proc AS p
    WHERE p.pronamespace = '"postrider"'::pg_catalog.regnamespace), ''), true);
