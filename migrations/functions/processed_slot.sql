-- processed_slot(): the leaf of a consumer's key. There are 32 leaves of 2^28 ms (3.1 days), one
-- for each value of the bits 28 to 32 of the id's milliseconds; -1 is for ids that are not version
-- 7 and have no time.

CREATE OR REPLACE FUNCTION "postrider".processed_slot(event_id uuid) RETURNS smallint
LANGUAGE sql IMMUTABLE PARALLEL SAFE
RETURN CASE WHEN get_byte(uuid_send(event_id), 6) >> 4 = 7
            THEN ((get_byte(uuid_send(event_id), 1) & 1) << 4)
                 | (get_byte(uuid_send(event_id), 2) >> 4)
            ELSE -1 END::smallint;

COMMENT ON FUNCTION "postrider".processed_slot(uuid)
    IS 'The leaf of `processed` that an event id belongs to.';
REVOKE ALL ON FUNCTION "postrider".processed_slot(uuid) FROM PUBLIC;
GRANT EXECUTE ON FUNCTION "postrider".processed_slot(uuid) TO postrider_consumer;
