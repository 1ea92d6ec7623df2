-- check_header_value(): says what is wrong with the value of one header (22023), or returns true.

CREATE OR REPLACE FUNCTION "postrider".check_header_value(name text, value text) RETURNS boolean
LANGUAGE plpgsql STABLE
SET search_path = pg_catalog, pg_temp AS $body$
BEGIN
    -- The usual value passes in one expression.
    IF octet_length(value) <= 1024 AND value ~ '^[ -~]*$' THEN
        RETURN true;
    ELSIF octet_length(convert_to(value, 'UTF8')) > 4096 THEN
        RAISE EXCEPTION 'header "%" has a value of % bytes', name, octet_length(convert_to(value, 'UTF8'))
            USING ERRCODE = '22023',
                  HINT = 'keep each value within 4096 bytes; large data belongs in the payload';
    ELSIF value ~ E'[\\x01-\\x08\\x0a-\\x1f\\x7f]' OR value ~ "postrider".unseen(false) THEN
        RAISE EXCEPTION 'header "%" has a control character in its value', name
            USING ERRCODE = '22023',
                  HINT = 'remove line breaks and control characters; a tab is allowed';
    END IF;
    RETURN true;
END
$body$;

COMMENT ON FUNCTION "postrider".check_header_value(text, text)
    IS 'Refuses a headers value that cannot be sent.';
REVOKE ALL ON FUNCTION "postrider".check_header_value(text, text) FROM PUBLIC;
GRANT EXECUTE ON FUNCTION "postrider".check_header_value(text, text) TO postrider_producer;
