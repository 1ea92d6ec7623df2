-- uuid7(): a version 7 UUID: 48 bits of Unix milliseconds (eleven hexadecimal digits until the year
-- 2527), then random bits.

CREATE OR REPLACE FUNCTION "postrider".uuid7() RETURNS uuid
LANGUAGE sql VOLATILE PARALLEL SAFE
RETURN ('0' || to_hex((date_part('epoch', clock_timestamp()) * 1000)::bigint)
        || '7' || substr(gen_random_uuid()::text, 16))::uuid;

COMMENT ON FUNCTION "postrider".uuid7() IS 'A new version 7 UUID.';
REVOKE ALL ON FUNCTION "postrider".uuid7() FROM PUBLIC;
GRANT EXECUTE ON FUNCTION "postrider".uuid7() TO postrider_producer, postrider_operator;
