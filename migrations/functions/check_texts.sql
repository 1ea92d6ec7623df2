-- check_texts(): says which of the longer texts of an event cannot be sent or stored (22023), or
-- returns true. Called only when there is a long one. `others` are the bytes of the event's other
-- texts.

CREATE OR REPLACE FUNCTION "postrider".check_texts(texts jsonb, others integer) RETURNS boolean
LANGUAGE plpgsql STABLE
SET search_path = pg_catalog, pg_temp AS $body$
DECLARE
    name text;
    value text;
    bytes integer := others;
BEGIN
    FOR name, value IN SELECT * FROM jsonb_each_text(texts) LOOP
        IF "postrider".encoded_bytes(value) > 4096 THEN
            RAISE EXCEPTION '% has % bytes once it is encoded', name, "postrider".encoded_bytes(value)
                USING ERRCODE = '22023',
                      HINT = 'keep it within 4096, where each byte that is not plain ASCII counts three times';
        END IF;
        bytes := bytes + coalesce(octet_length(value), 0);
    END LOOP;
    IF bytes > 7500 THEN
        RAISE EXCEPTION 'the texts of an event have % bytes in total', bytes
            USING ERRCODE = '22023',
                  HINT = 'a row has room for 7500 bytes beside its headers and its payload; large data belongs in the payload';
    END IF;
    RETURN true;
END
$body$;

COMMENT ON FUNCTION "postrider".check_texts(jsonb, integer)
    IS 'Refuses texts of an event that are too long.';
REVOKE ALL ON FUNCTION "postrider".check_texts(jsonb, integer) FROM PUBLIC;
GRANT EXECUTE ON FUNCTION "postrider".check_texts(jsonb, integer) TO postrider_producer;
