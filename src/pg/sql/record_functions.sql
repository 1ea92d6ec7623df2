-- Drops the functions of the record `installed_function` that no function file has just replaced.
-- Records those that the files have replaced. This is the last statement when `postrider migrate`
-- replaces all functions.
--
-- A function in the schema that was never recorded belongs to another program, and stays.
--
-- Settings: postrider.functions_before (note_functions.sql), postrider.functions (an array of the
--   files as JSON: {file, checksum, program})
-- Locks: the functions that it drops.
DO $body$
DECLARE
    before CONSTANT text[] := string_to_array(current_setting('postrider.functions_before'), ';');
    stale text;
BEGIN
    SELECT string_agg(p.oid::regprocedure::text, ', ') INTO stale
    FROM "postrider".installed_function AS f
    JOIN "postrider".function_digests() AS d USING (signature)
    JOIN pg_catalog.pg_proc AS p ON p.oid = d.function
    WHERE format('%s %s', p.oid, p.ctid) = ANY (before);
    IF stale IS NOT NULL THEN
        EXECUTE 'DROP FUNCTION ' || stale;
    END IF;
    DELETE FROM "postrider".installed_function;
    INSERT INTO "postrider".installed_function (
        signature, file, checksum, digest, postgres, roles, program)
    SELECT d.signature, f.file, f.checksum, d.digest,
           current_setting('server_version_num')::integer / 10000,
           ARRAY(SELECT r.rolname::text FROM aclexplode(p.proacl) AS a
                 JOIN pg_catalog.pg_roles AS r ON r.oid = a.grantee
                 WHERE a.privilege_type = 'EXECUTE'
                   AND r.rolname IN ('postrider_producer', 'postrider_consumer',
                                     'postrider_relay', 'postrider_operator')
                 ORDER BY r.rolname),
           f.program
    FROM json_to_recordset(current_setting('postrider.functions')::json)
        AS f (file text, checksum text, program text)
    JOIN "postrider".function_digests() AS d ON d.name = f.file
    JOIN pg_catalog.pg_proc AS p ON p.oid = d.function
    WHERE NOT format('%s %s', p.oid, p.ctid) = ANY (before);
END
$body$;
