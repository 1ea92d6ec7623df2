-- check_headers(): says what is wrong with the headers of an event (22023). A broken trace context
-- is no fault: middleware adds it, and the relay leaves it out.

CREATE OR REPLACE FUNCTION "postrider".check_headers(headers jsonb) RETURNS void
LANGUAGE plpgsql STABLE
SET search_path = pg_catalog, pg_temp AS $body$
DECLARE
    name text;
    value jsonb;
    item text;
    is_valid boolean;
    count integer := 0;
    bytes bigint := 0;
BEGIN
    IF jsonb_typeof(headers) <> 'object' THEN
        RAISE EXCEPTION 'headers are a JSON %, not an object', jsonb_typeof(headers)
            USING ERRCODE = '22023', HINT = 'pass headers like {"tenant": "acme"}';
    END IF;
    FOR name, value IN SELECT * FROM jsonb_each(headers) LOOP
        -- Lengths are compared, not matched: a regular expression with a bound is slow.
        IF name !~ '^[A-Za-z0-9!#$%&''*+.^_`|~-]+$' OR octet_length(name) > 128 THEN
            RAISE EXCEPTION 'header name % cannot be sent', to_json(left(name, 128))
                USING ERRCODE = '22023',
                      HINT = 'use 1 to 128 letters, digits or any of !#$%&''*+.^_`|~-';
        ELSIF name ~* '^(nats|ce|postrider)-' THEN
            RAISE EXCEPTION 'header name "%" is reserved', name
                USING ERRCODE = '22023',
                      HINT = 'names that start with Nats-, ce- or Postrider- are set by the relay; choose another name';
        ELSIF lower(name) IN ('traceparent', 'tracestate', 'baggage')
              AND octet_length(value::text) <= 8192 THEN
            -- A trace context must not fail a transaction: the relay leaves out the part that cannot
            -- be sent.
            CONTINUE;
        ELSIF jsonb_typeof(value) NOT IN ('string', 'number', 'boolean', 'array') THEN
            RAISE EXCEPTION 'header "%" has a JSON % as its value', name, jsonb_typeof(value)
                USING ERRCODE = '22023',
                      HINT = 'use a string, a number, a boolean or an array of strings; leave out what is null';
        ELSIF jsonb_typeof(value) = 'array'
              AND jsonb_path_exists(value, 'strict $[*] ? (@.type() != "string")') THEN
            RAISE EXCEPTION 'header "%" has an array with an element that is not a string', name
                USING ERRCODE = '22023', HINT = 'an array repeats the header: use strings only';
        END IF;
        IF jsonb_typeof(value) <> 'array' THEN
            is_valid := "postrider".check_header_value(name, value #>> '{}');
            count := count + 1;
            bytes := bytes + octet_length(name) + octet_length(convert_to(value #>> '{}', 'UTF8'));
            CONTINUE;
        END IF;
        FOR item IN SELECT * FROM jsonb_array_elements_text(value) LOOP
            is_valid := "postrider".check_header_value(name, item);
            count := count + 1;
            bytes := bytes + octet_length(name) + octet_length(convert_to(item, 'UTF8'));
        END LOOP;
    END LOOP;
    IF count > 64 THEN
        RAISE EXCEPTION 'an event has % headers', count
            USING ERRCODE = '22023', HINT = 'use at most 64 headers (each element of an array counts)';
    ELSIF bytes > 32768 THEN
        RAISE EXCEPTION 'the headers of an event have % bytes in total', bytes
            USING ERRCODE = '22023', HINT = 'keep names and values within 32768 bytes together';
    END IF;
END
$body$;

COMMENT ON FUNCTION "postrider".check_headers(jsonb) IS 'Refuses headers that cannot be sent.';
REVOKE ALL ON FUNCTION "postrider".check_headers(jsonb) FROM PUBLIC;
GRANT EXECUTE ON FUNCTION "postrider".check_headers(jsonb) TO postrider_producer;
