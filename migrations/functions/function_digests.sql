-- function_digests(): the functions of this schema as the catalog has them, each with a digest of
-- everything that decides what it does. `postrider migrate` records the digests and `postrider
-- check` compares them: a function whose digest differs was changed by hand.
--
-- Owner and grants are no part of the digest: a restore or a DBA may change these. The text of a
-- body that begins with RETURN is made by the server, and each major version may make another.

CREATE OR REPLACE FUNCTION "postrider".function_digests()
RETURNS TABLE (function oid, name text, signature text, digest text)
LANGUAGE sql STABLE SET search_path = pg_catalog, pg_temp SET quote_all_identifiers = off
AS $body$
    SELECT p.oid, p.proname::text, format('%s(%s)', p.proname, oidvectortypes(p.proargtypes)),
           md5(concat_ws(chr(31), l.lanname, p.prokind, p.prosecdef, p.proleakproof, p.proisstrict,
                         p.provolatile, p.proparallel, p.proconfig,
                         pg_get_function_arguments(p.oid), pg_get_function_result(p.oid),
                         p.prosrc, pg_get_function_sqlbody(p.oid)))
    FROM pg_proc AS p JOIN pg_language AS l ON l.oid = p.prolang
    WHERE p.pronamespace = '"postrider"'::regnamespace
$body$;

COMMENT ON FUNCTION "postrider".function_digests()
    IS 'The functions of this schema, with a digest of each.';
REVOKE ALL ON FUNCTION "postrider".function_digests() FROM PUBLIC;
GRANT EXECUTE ON FUNCTION "postrider".function_digests() TO postrider_relay, postrider_operator;
