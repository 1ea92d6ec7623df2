-- The consumers' dedup keys, and claim(), which takes one in the transaction of the effect.
--
-- Why: a consumer that claims an event's id in the transaction that applies it applies it once,
-- however often it is delivered. Keys are forgotten by TRUNCATE of one leaf, never by DELETE of
-- many rows: the leaf follows from the id itself (bits of its version 7 time), because it has to
-- be the same at every delivery, and the leaves form a fixed ring, so a claim never fails for lack
-- of a partition and no DDL runs later.
--
-- Locks: only objects that this file creates.

SET LOCAL lock_timeout = '5s';

-- 32 leaves of 2^28 ms (3.1 days), one for each value of the bits 28 to 32 of the id's
-- milliseconds; -1 for ids that are not version 7 and tell no time.
CREATE FUNCTION "postrider".processed_slot(event_id uuid) RETURNS smallint
LANGUAGE sql IMMUTABLE PARALLEL SAFE
RETURN CASE WHEN get_byte(uuid_send(event_id), 6) >> 4 = 7
            THEN ((get_byte(uuid_send(event_id), 1) & 1) << 4)
                 | (get_byte(uuid_send(event_id), 2) >> 4)
            ELSE -1 END::smallint;

CREATE TABLE "postrider".processed (
    event_id     uuid        NOT NULL,
    consumer     text        NOT NULL,
    slot         smallint    NOT NULL,
    processed_at timestamptz NOT NULL DEFAULT clock_timestamp(),
    PRIMARY KEY (event_id, consumer, slot),
    CONSTRAINT processed_consumer_named CHECK (octet_length(consumer) BETWEEN 1 AND 255)
) PARTITION BY LIST (slot);

COMMENT ON TABLE "postrider".processed IS 'What consumers have applied: see claim().';

DO $body$
BEGIN
    FOR slot IN 0..31 LOOP
        EXECUTE format(
            'CREATE TABLE "postrider".processed_%1$s PARTITION OF "postrider".processed '
            'FOR VALUES IN (%1$s) WITH (autovacuum_vacuum_insert_threshold = -1)', slot);
    END LOOP;
END
$body$;

-- Ids without a time are forgotten row by row.
CREATE TABLE "postrider".processed_timeless
    PARTITION OF "postrider".processed FOR VALUES IN (-1);
CREATE INDEX processed_timeless_at ON "postrider".processed_timeless (processed_at);

-- True: the first time, do the work and commit. False: it is done, or being done by a transaction
-- that has committed meanwhile. Never raises for a repeated id, so the transaction stays usable.
CREATE FUNCTION "postrider".claim(consumer text, event_id uuid) RETURNS boolean
LANGUAGE plpgsql VOLATILE AS $body$
#variable_conflict use_variable
BEGIN
    IF consumer IS NULL OR consumer = '' OR octet_length(consumer) > 255 THEN
        RAISE EXCEPTION 'consumer is empty or longer than 255 bytes'
            USING ERRCODE = '22023', HINT = 'pass the same short name in every instance of a consumer';
    ELSIF event_id IS NULL THEN
        RAISE EXCEPTION 'event_id is null'
            USING ERRCODE = '22023', HINT = 'pass the message''s Nats-Msg-Id';
    END IF;
    INSERT INTO "postrider".processed (event_id, consumer, slot)
    VALUES (event_id, consumer, "postrider".processed_slot(event_id))
    ON CONFLICT DO NOTHING;
    RETURN FOUND;
END
$body$;

-- Forgets keys that are older than `retention`; the relay calls it now and then. A leaf goes when
-- its time is over and its newest key is old enough: a claim of a very old event keeps it longer.
-- Waits for nobody: a leaf that is in use is left for the next call.
--
-- Returns how many leaves were emptied and how many timeless keys were deleted.
-- SECURITY DEFINER, because TRUNCATE of a leaf is all that the relay may do to this table.
CREATE FUNCTION "postrider".processed_maintain(
    retention interval DEFAULT '30 days', OUT leaves integer, OUT timeless bigint)
LANGUAGE plpgsql VOLATILE SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $body$
DECLARE
    leaf_millis CONSTANT bigint := 1 << 28;
    now_at CONSTANT timestamptz := clock_timestamp();
    epoch bigint := floor(date_part('epoch', now_at) * 1000)::bigint / leaf_millis;
    ends_at timestamptz;
    leaf text;
    in_use boolean;
BEGIN
    leaves := 0;
    IF retention < '1 hour' OR retention > '90 days' THEN
        RAISE EXCEPTION 'retention of processed keys is %', retention
            USING ERRCODE = '22023', HINT = 'use 1 hour to 90 days: longer than any redrive';
    END IF;
    FOR slot IN 0..31 LOOP
        -- The last time that this slot stands for, with one leaf of room for clocks that are ahead.
        ends_at := to_timestamp(
            (epoch + 2 - (((epoch + 1 - slot) % 32) + 32) % 32) * leaf_millis / 1000.0);
        CONTINUE WHEN ends_at > now_at - retention;
        leaf := format('"postrider".processed_%s', slot);
        EXECUTE format('SELECT EXISTS (SELECT FROM %s)', leaf) INTO in_use;
        CONTINUE WHEN NOT in_use;
        EXECUTE format('SELECT EXISTS (SELECT FROM %s WHERE processed_at >= $1)', leaf)
            INTO in_use USING now_at - retention;
        CONTINUE WHEN in_use;
        BEGIN
            EXECUTE format('LOCK TABLE %s IN ACCESS EXCLUSIVE MODE NOWAIT', leaf);
            -- Again under the lock, where every claim is visible.
            EXECUTE format('SELECT EXISTS (SELECT FROM %s WHERE processed_at >= $1)', leaf)
                INTO in_use USING now_at - retention;
            IF NOT in_use THEN
                EXECUTE format('TRUNCATE %s', leaf);
                leaves := leaves + 1;
            END IF;
        EXCEPTION WHEN lock_not_available THEN
            NULL;
        END;
    END LOOP;
    DELETE FROM "postrider".processed_timeless AS p
    WHERE p.ctid = ANY (ARRAY(
        SELECT old.ctid FROM "postrider".processed_timeless AS old
        WHERE old.processed_at < now_at - retention
        ORDER BY old.processed_at LIMIT 10000 FOR UPDATE SKIP LOCKED));
    GET DIAGNOSTICS timeless = ROW_COUNT;
END
$body$;

REVOKE ALL ON FUNCTION "postrider".processed_slot(uuid) FROM PUBLIC;
REVOKE ALL ON FUNCTION "postrider".claim(text, uuid) FROM PUBLIC;
REVOKE ALL ON FUNCTION "postrider".processed_maintain(interval) FROM PUBLIC;
GRANT EXECUTE ON FUNCTION "postrider".processed_slot(uuid), "postrider".claim(text, uuid)
    TO postrider_consumer;
GRANT INSERT (event_id, consumer, slot) ON "postrider".processed TO postrider_consumer;
GRANT EXECUTE ON FUNCTION "postrider".processed_maintain(interval) TO postrider_relay;
GRANT SELECT ON "postrider".processed TO postrider_operator;
