-- Drops the functions that one file of migrations/functions/ installed earlier, before this file
-- runs again. Postgres cannot replace a function by one with other result columns, so the old
-- function has to go first.
--
-- Settings: postrider.functions_dropped (the file's name)
-- Locks: the functions that it drops.
DO $body$
DECLARE
    old text;
BEGIN
    SELECT string_agg(p.oid::regprocedure::text, ', ') INTO old
    FROM "postrider".installed_function AS f
    JOIN pg_catalog.pg_proc AS p ON p.pronamespace = '"postrider"'::regnamespace
        AND f.signature = format('%s(%s)', p.proname, oidvectortypes(p.proargtypes))
    WHERE f.file = current_setting('postrider.functions_dropped');
    IF old IS NOT NULL THEN
        EXECUTE 'DROP FUNCTION ' || old;
    END IF;
END
$body$;
