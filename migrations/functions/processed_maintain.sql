-- processed_maintain(): forgets consumers' keys that are older than `retention`; the relay calls it
-- now and then. A leaf goes when its time is over and its newest key is old enough: a claim of a
-- very old event keeps it longer. It waits for no lock: a leaf that is in use is left for the next
-- call.
--
-- Returns the number of leaves that were emptied and of timeless keys that were deleted. READ
-- COMMITTED only: an older snapshot would not see the claims that were committed before the lock
-- was taken, and forget them.
--
-- SECURITY DEFINER: TRUNCATE of a leaf is all that the relay may do to this table.

CREATE OR REPLACE FUNCTION "postrider".processed_maintain(
    retention interval DEFAULT '30 days', OUT leaves integer, OUT timeless bigint)
LANGUAGE plpgsql VOLATILE SECURITY DEFINER
SET search_path = pg_catalog, pg_temp SET row_security = off AS $body$
DECLARE
    leaf_millis CONSTANT bigint := 1 << 28;
    now_at CONSTANT timestamptz := clock_timestamp();
    epoch bigint := floor(date_part('epoch', now_at) * 1000)::bigint / leaf_millis;
    ends_at timestamptz;
    leaf text;
    in_use boolean;
BEGIN
    leaves := 0;
    IF retention IS NULL OR retention < '1 hour' OR retention > '90 days' THEN
        RAISE EXCEPTION 'retention of processed keys is %', retention
            USING ERRCODE = '22023', HINT = 'use 1 hour to 90 days: longer than any redrive';
    ELSIF current_setting('transaction_isolation') <> 'read committed' THEN
        RAISE EXCEPTION 'processed_maintain() runs under READ COMMITTED only'
            USING ERRCODE = '25001', HINT = 'call it outside of other transactions';
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

COMMENT ON FUNCTION "postrider".processed_maintain(interval) IS 'Forgets old keys of consumers.';
REVOKE ALL ON FUNCTION "postrider".processed_maintain(interval) FROM PUBLIC;
GRANT EXECUTE ON FUNCTION "postrider".processed_maintain(interval) TO postrider_relay;
