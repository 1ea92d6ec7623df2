-- sequence_value(): the last value of a sequence, 0 before its first one. From version 18 on
-- pg_sequence_last_value is null for a role without the privilege; currval refuses such a role with
-- 42501 in every version. The planner puts the expression into the calling statement.
--
-- Everybody's, also where functions are not by default.

CREATE OR REPLACE FUNCTION "postrider".sequence_value(sequence regclass) RETURNS bigint
LANGUAGE sql VOLATILE
RETURN coalesce(pg_sequence_last_value(sequence),
                CASE WHEN has_sequence_privilege(sequence::oid, 'USAGE, SELECT') THEN 0
                     ELSE currval(sequence) END);

COMMENT ON FUNCTION "postrider".sequence_value(regclass)
    IS 'The last value of a sequence, or 42501.';
GRANT EXECUTE ON FUNCTION "postrider".sequence_value(regclass) TO PUBLIC;
