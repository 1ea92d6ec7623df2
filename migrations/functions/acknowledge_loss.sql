-- acknowledge_loss(): records that a person has seen all losses of a relay that stand. Returns the
-- number of losses.

CREATE OR REPLACE FUNCTION "postrider".acknowledge_loss(relay text, actor text, reason text)
RETURNS bigint
LANGUAGE sql VOLATILE SECURITY DEFINER
SET search_path = pg_catalog, pg_temp AS $body$
    WITH seen AS (
        UPDATE "postrider".loss AS l
        SET acknowledged_at = clock_timestamp(), acknowledged_by = $2, reason = $3
        WHERE l.relay = $1 AND l.acknowledged_at IS NULL
        RETURNING l.id, l.relay, l.events_at_most
    ), recorded AS (
        INSERT INTO "postrider".audit (actor, action, reason, relay, before, after)
        SELECT $2, 'acknowledge_loss', $3, seen.relay,
               jsonb_build_object('loss', seen.id, 'events_at_most', seen.events_at_most),
               '{"acknowledged": true}'
        FROM seen
        RETURNING 1
    )
    SELECT count(*) FROM recorded
$body$;

COMMENT ON FUNCTION "postrider".acknowledge_loss(text, text, text)
    IS 'Acknowledges the losses of a relay.';
REVOKE ALL ON FUNCTION "postrider".acknowledge_loss(text, text, text) FROM PUBLIC;
GRANT EXECUTE ON FUNCTION "postrider".acknowledge_loss(text, text, text) TO postrider_operator;
