-- note_filter(): writes down what the relay of this term takes. A change is a row of the audit, with
-- the position at which it was made, what is before it was decided by the filter before, and with how
-- many of the events that waited are passed over. Returns that number, null without a change.

CREATE OR REPLACE FUNCTION "postrider".note_filter(name text, our_term bigint, new_filter jsonb)
RETURNS bigint
LANGUAGE plpgsql VOLATILE SECURITY DEFINER SET search_path = pg_catalog, pg_temp
AS $body$
DECLARE
    found_position "postrider".position;
    passed_over bigint;
BEGIN
    SELECT p.* INTO found_position FROM "postrider".position AS p
    WHERE p.relay = name AND p.term = our_term AND p.filter IS DISTINCT FROM new_filter
    FOR UPDATE;
    IF found_position.relay IS NULL THEN
        RETURN NULL;
    END IF;
    -- A position of the first term has passed nothing under another filter.
    IF our_term > 1 THEN
        passed_over := "postrider".passed_over(name, new_filter);
        INSERT INTO "postrider".audit (actor, action, reason, relay, before, after)
        VALUES ('postrider run', 'filter', 'the configuration of the route was changed', name,
                jsonb_build_object('filter', found_position.filter,
                                   'snapshot', found_position.snapshot::text,
                                   'target', found_position.target::text,
                                   'bookmark', found_position.bookmark),
                jsonb_build_object('filter', new_filter, 'passed_over', passed_over));
    END IF;
    UPDATE "postrider".position AS p SET filter = new_filter WHERE p.relay = name;
    RETURN passed_over;
END
$body$;

COMMENT ON FUNCTION "postrider".note_filter(text, bigint, jsonb)
    IS 'Writes down what a relay takes.';
REVOKE ALL ON FUNCTION "postrider".note_filter(text, bigint, jsonb) FROM PUBLIC;
GRANT EXECUTE ON FUNCTION "postrider".note_filter(text, bigint, jsonb) TO postrider_relay;
