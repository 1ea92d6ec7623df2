-- check_kind(): says that the kind of an event is unknown (22023), or returns true.

CREATE OR REPLACE FUNCTION "postrider".check_kind(kind text) RETURNS boolean
LANGUAGE plpgsql IMMUTABLE
SET search_path = pg_catalog, pg_temp AS $body$
BEGIN
    IF kind NOT IN ('domain', 'integration', 'command', 'notification', 'system') THEN
        RAISE EXCEPTION 'kind % is unknown', to_json(left(kind, 128))
            USING ERRCODE = '22023',
                  HINT = 'use domain, integration, command, notification or system';
    END IF;
    RETURN true;
END
$body$;

COMMENT ON FUNCTION "postrider".check_kind(text) IS 'Refuses an unknown kind of event.';
REVOKE ALL ON FUNCTION "postrider".check_kind(text) FROM PUBLIC;
GRANT EXECUTE ON FUNCTION "postrider".check_kind(text) TO postrider_producer;
