-- note_filter(): records the filter of the relay of this term. A change is a row of the audit, with
-- the position at which it was made: events before that position were decided by the filter
-- before. `passed_over` is the number of events that waited and are passed over, null when it was
-- not counted. Returns whether there was a change.

CREATE OR REPLACE FUNCTION "postrider".note_filter(
    name text, our_term bigint, new_filter jsonb, passed_over bigint)
RETURNS boolean
LANGUAGE plpgsql VOLATILE SECURITY DEFINER SET search_path = pg_catalog, pg_temp
AS $body$
DECLARE
    found_position "postrider".position;
    is_change boolean;
BEGIN
    SELECT p.* INTO found_position FROM "postrider".position AS p
    WHERE p.relay = name AND p.term = our_term AND p.filter IS DISTINCT FROM new_filter
    FOR UPDATE;
    IF found_position.relay IS NULL THEN
        RETURN false;
    END IF;
    -- A position that has settled nothing without a filter has just begun.
    is_change := found_position.filter IS NOT NULL OR found_position.bookmark > 0
                 OR found_position.snapshot::text <> '3:3:';
    IF is_change THEN
        INSERT INTO "postrider".audit (actor, action, reason, relay, before, after)
        VALUES ('postrider run', 'filter', 'the configuration of the route was changed', name,
                jsonb_build_object('filter', found_position.filter,
                                   'snapshot', found_position.snapshot::text,
                                   'target', found_position.target::text,
                                   'bookmark', found_position.bookmark),
                jsonb_build_object('filter', new_filter, 'passed_over', passed_over));
    END IF;
    UPDATE "postrider".position AS p SET filter = new_filter WHERE p.relay = name;
    RETURN is_change;
END
$body$;

COMMENT ON FUNCTION "postrider".note_filter(text, bigint, jsonb, bigint)
    IS 'Writes down what a relay takes.';
REVOKE ALL ON FUNCTION "postrider".note_filter(text, bigint, jsonb, bigint) FROM PUBLIC;
GRANT EXECUTE ON FUNCTION "postrider".note_filter(text, bigint, jsonb, bigint) TO postrider_relay;
