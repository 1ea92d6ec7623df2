-- first_gate(): the gate of a sequence that has no value yet, as after a dump of the structure
-- alone. In version 18 that is also what a role sees that may not read it: such a role is refused
-- as in every version. The SET clause keeps the body out of the statements that insert.
--
-- The default of outbox.slot calls it (0012_contract.sql), so everybody may, also where functions
-- are not everybody's by default.

CREATE OR REPLACE FUNCTION "postrider".first_gate() RETURNS bigint
LANGUAGE sql VOLATILE SET search_path = pg_catalog, pg_temp
RETURN CASE WHEN has_sequence_privilege('"postrider".gate'::regclass::oid, 'USAGE, SELECT') THEN 0
            ELSE currval('"postrider".gate'::regclass) END;

COMMENT ON FUNCTION "postrider".first_gate() IS 'Part of the default of outbox.slot.';
GRANT EXECUTE ON FUNCTION "postrider".first_gate() TO PUBLIC;
