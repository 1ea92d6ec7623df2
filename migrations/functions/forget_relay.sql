-- forget_relay(): gives up a relay's position, so that its rows do not stay in the outbox for it.
-- On request its unresolved letters are discarded. `outcome` is forgotten, or the reason against
-- it: unknown (there is no such position), led (an instance runs it), letters (some are
-- unresolved).

CREATE OR REPLACE FUNCTION "postrider".forget_relay(
    name text, actor text, reason text, discard_letters boolean,
    OUT outcome text, OUT letters bigint)
LANGUAGE plpgsql VOLATILE SECURITY DEFINER SET search_path = pg_catalog, pg_temp
AS $body$
DECLARE
    found_position "postrider".position;
BEGIN
    letters := 0;
    SELECT p.* INTO found_position FROM "postrider".position AS p WHERE p.relay = name FOR UPDATE;
    IF found_position.relay IS NULL THEN
        outcome := 'unknown';
        RETURN;
    END IF;
    IF "postrider".is_led(name) THEN
        outcome := 'led';
        RETURN;
    END IF;
    SELECT count(*) INTO letters FROM "postrider".letter AS l
    WHERE l.relay = name AND l.resolved_at IS NULL;
    IF letters > 0 AND NOT discard_letters THEN
        outcome := 'letters';
        RETURN;
    END IF;
    WITH changed AS (
        UPDATE "postrider".letter AS l
        SET resolution = 'discarded', resolved_by = forget_relay.actor,
            resolved_at = clock_timestamp(), reason = forget_relay.reason, next_attempt_at = NULL
        WHERE l.relay = name AND l.resolved_at IS NULL
        RETURNING l.id, l.seq, l.event_id, l.state
    )
    INSERT INTO "postrider".audit (
        actor, action, reason, relay, letter_id, seq, event_id, before, after)
    SELECT forget_relay.actor, 'discard', forget_relay.reason, name, c.id, c.seq, c.event_id,
           jsonb_build_object('resolution', NULL, 'state', c.state),
           jsonb_build_object('resolution', 'discarded')
    FROM changed AS c
    ORDER BY c.seq;
    DELETE FROM "postrider".checkpoint AS c WHERE c.relay = name;
    DELETE FROM "postrider".position AS p WHERE p.relay = name;
    DELETE FROM "postrider".contract AS c WHERE c.relay = name;
    INSERT INTO "postrider".audit (actor, action, reason, relay, before, after)
    VALUES (forget_relay.actor, 'forget_relay', forget_relay.reason, name,
            jsonb_build_object('term', found_position.term, 'holder', found_position.holder,
                               'updated_at', found_position.updated_at,
                               'bookmark', found_position.bookmark,
                               'stream_name', found_position.stream_name),
            jsonb_build_object('letters_discarded', letters));
    outcome := 'forgotten';
END
$body$;

COMMENT ON FUNCTION "postrider".forget_relay(text, text, text, boolean)
    IS 'Gives up the position of a relay that does not run any more.';
REVOKE ALL ON FUNCTION "postrider".forget_relay(text, text, text, boolean) FROM PUBLIC;
GRANT EXECUTE ON FUNCTION "postrider".forget_relay(text, text, text, boolean) TO postrider_operator;
