-- legible(): a text that every driver can read. A text with bytes that are no characters, as in
-- damaged storage, has each odd byte escaped; every other text stays as it is.

CREATE OR REPLACE FUNCTION "postrider".legible(value text) RETURNS text
LANGUAGE plpgsql STABLE STRICT SET search_path = pg_catalog, pg_temp AS $body$
BEGIN
    PERFORM convert_from(textsend(value), getdatabaseencoding());
    RETURN value;
EXCEPTION WHEN OTHERS THEN
    RETURN encode(textsend(value), 'escape');
END
$body$;

COMMENT ON FUNCTION "postrider".legible(text) IS 'A text that every driver can read.';
REVOKE ALL ON FUNCTION "postrider".legible(text) FROM PUBLIC;
GRANT EXECUTE ON FUNCTION "postrider".legible(text) TO postrider_relay, postrider_operator;
