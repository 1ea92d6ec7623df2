-- operator_heal(): asks a relay that waits for an operator to accept the stream as it is. A relay
-- that does not wait is not asked: it would silently accept a later loss. $1 relay, $2
-- actor, $3 channel that wakes the relay. Returns whether it was asked.

CREATE OR REPLACE FUNCTION "postrider".operator_heal(text, text, text) RETURNS boolean
LANGUAGE plpgsql VOLATILE SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $body$
DECLARE
    waits boolean;
BEGIN
    UPDATE "postrider".position AS p SET heal_requested_at = clock_timestamp()
    WHERE p.relay = $1 AND p.gate_kind = 'broker_regressed'
    RETURNING true INTO waits;
    IF waits THEN
        -- The record is about no letter.
        INSERT INTO "postrider".audit (actor, action, relay, letter_id, seq, event_id, before, after)
        VALUES ($2, 'heal', $1, 0, 0, '00000000-0000-0000-0000-000000000000', '{}', '{}');
        PERFORM pg_notify($3, 'heal');
    END IF;
    RETURN coalesce(waits, false);
END
$body$;

COMMENT ON FUNCTION "postrider".operator_heal(text, text, text)
    IS 'Has a waiting relay accept the stream as it is.';
REVOKE ALL ON FUNCTION "postrider".operator_heal(text, text, text) FROM PUBLIC;
GRANT EXECUTE ON FUNCTION "postrider".operator_heal(text, text, text) TO postrider_operator;
