-- encoded_bytes(): the bytes of a text as a CloudEvents attribute: in UTF-8, with `%XX` for each
-- byte that is not plain.

CREATE OR REPLACE FUNCTION "postrider".encoded_bytes(value text) RETURNS integer
LANGUAGE sql IMMUTABLE STRICT PARALLEL SAFE
RETURN octet_length(convert_to(value, 'UTF8'))
    + 2 * octet_length(convert_to(regexp_replace(value, '[!#$&-~]+', '', 'g'), 'UTF8'));

COMMENT ON FUNCTION "postrider".encoded_bytes(text)
    IS 'Bytes of a text as a CloudEvents attribute.';
REVOKE ALL ON FUNCTION "postrider".encoded_bytes(text) FROM PUBLIC;
GRANT EXECUTE ON FUNCTION "postrider".encoded_bytes(text) TO postrider_producer;
