-- Retention of the outbox without DELETE, and what a restore into another cluster needs.
--
-- Why: new rows go to one slot at a time. A slot that is no longer current is sealed once all its
-- rows are settled, and emptied by TRUNCATE when it has been sealed for the retention. A slot that
-- cannot be emptied stays as it is, and when no empty slot is left the current one just grows:
-- nothing that is not settled is ever removed, and no insert fails or waits. See docs/adr/0002.
--
-- Locks: only objects that this file creates.

SET LOCAL lock_timeout = '5s';

CREATE TABLE "postrider".slot (
    slot       smallint PRIMARY KEY,
    opened_at  timestamptz,  -- since when rows go there, or went there; null: empty
    sealed_at  timestamptz,  -- since when it is known that all its rows are settled
    emptied_at timestamptz,
    CONSTRAINT slot_sealed_after_opened CHECK (sealed_at IS NULL OR opened_at IS NOT NULL)
);

COMMENT ON TABLE "postrider".slot IS 'The turns that the leaves of the outbox take.';

INSERT INTO "postrider".slot (slot, opened_at)
SELECT n, CASE WHEN n = 0 THEN clock_timestamp() END FROM generate_series(0, 7) AS n;

-- Whether every relay has settled every visible row of a slot. Reads only above the positions.
CREATE FUNCTION "postrider".slot_settled(wanted smallint) RETURNS boolean
LANGUAGE sql VOLATILE
SET enable_seqscan = off SET enable_bitmapscan = off SET enable_sort = off
SET search_path = pg_catalog, pg_temp
RETURN EXISTS (SELECT FROM "postrider".position) AND NOT EXISTS (
    SELECT FROM "postrider".position AS p
    WHERE (SELECT true FROM "postrider".outbox AS o
           WHERE o.slot = wanted AND o.seq > p.floor
             AND o.tx >= pg_snapshot_xmax(p.snapshot)
             AND NOT (o.seq <= p.bookmark AND pg_visible_in_snapshot(o.tx, p.target))
           ORDER BY o.seq LIMIT 1)
       OR (SELECT true FROM pg_snapshot_xip(p.snapshot) AS x (tx)
           CROSS JOIN LATERAL (
               SELECT FROM "postrider".outbox AS l
               WHERE l.slot = wanted AND l.tx >= x.tx AND l.tx <= x.tx
                 AND NOT (l.seq <= p.bookmark AND pg_visible_in_snapshot(l.tx, p.target))
               ORDER BY l.tx, l.seq LIMIT 1) AS late
           LIMIT 1));

-- Seals, empties and rotates what is due; the relay calls it about once a minute. It waits for no
-- lock: what is in use is left for the next call. SECURITY DEFINER, so that the relay's role needs
-- no right to truncate.
CREATE FUNCTION "postrider".retain(
    retention interval,
    OUT sealed integer, OUT emptied integer, OUT rows_at_most bigint, OUT rotated boolean)
LANGUAGE plpgsql VOLATILE SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $body$
DECLARE
    now_at CONSTANT timestamptz := clock_timestamp();
    current_slot CONSTANT smallint :=
        coalesce(pg_sequence_last_value('"postrider".gate'::regclass), 0) & 7;
    turn record;
    drawn bigint;
    next_slot smallint;
BEGIN
    sealed := 0; emptied := 0; rows_at_most := 0; rotated := false;
    IF retention IS NULL OR retention < '0' THEN
        RAISE EXCEPTION 'retention is %', retention
            USING ERRCODE = '22023', HINT = 'use zero or more';
    ELSIF current_setting('transaction_isolation') <> 'read committed' THEN
        -- An old snapshot would not see rows that were committed before the lock was taken.
        RAISE EXCEPTION 'retain() runs under READ COMMITTED only'
            USING ERRCODE = '25001', HINT = 'call it outside of other transactions';
    ELSIF NOT pg_try_advisory_xact_lock(hashtextextended('"postrider" retain', 0)) THEN
        RETURN;
    END IF;

    UPDATE "postrider".slot SET opened_at = now_at, sealed_at = NULL
    WHERE slot = current_slot AND (opened_at IS NULL OR sealed_at IS NOT NULL);

    FOR turn IN
        SELECT s.slot, s.sealed_at, format('"postrider".outbox_%s', s.slot) AS leaf
        FROM "postrider".slot AS s
        WHERE s.slot <> current_slot AND s.opened_at IS NOT NULL
          AND (s.sealed_at IS NULL OR s.sealed_at <= now_at - retention)
        ORDER BY s.opened_at
    LOOP
        BEGIN
            IF turn.sealed_at IS NULL THEN
                -- Shuts writers out, so that every row there is visible to the look that follows.
                EXECUTE format('LOCK TABLE ONLY %s IN SHARE MODE NOWAIT', turn.leaf);
                IF "postrider".slot_settled(turn.slot) THEN
                    UPDATE "postrider".slot SET sealed_at = now_at WHERE slot = turn.slot;
                    sealed := sealed + 1;
                END IF;
            ELSIF NOT EXISTS (SELECT FROM "postrider".letter AS l
                              WHERE l.slot = turn.slot AND l.payload_omitted
                                AND l.resolved_at IS NULL) THEN
                EXECUTE format('LOCK TABLE ONLY %s IN ACCESS EXCLUSIVE MODE NOWAIT', turn.leaf);
                -- Looked at again: a writer may have chosen the slot just before it was left.
                IF "postrider".slot_settled(turn.slot) THEN
                    EXECUTE format('SELECT max(seq) - min(seq) + 1 FROM %s', turn.leaf) INTO drawn;
                    EXECUTE format('TRUNCATE %s', turn.leaf);
                    UPDATE "postrider".slot
                    SET opened_at = NULL, sealed_at = NULL, emptied_at = now_at
                    WHERE slot = turn.slot;
                    emptied := emptied + 1;
                    rows_at_most := rows_at_most + coalesce(drawn, 0);
                ELSE
                    UPDATE "postrider".slot SET sealed_at = NULL WHERE slot = turn.slot;
                END IF;
            END IF;
        EXCEPTION WHEN lock_not_available THEN
            NULL;
        END;
    END LOOP;

    -- Six of the eight slots share the retention; the other two are the current and the next one.
    IF (SELECT s.opened_at <= now_at - retention / 6
        FROM "postrider".slot AS s WHERE s.slot = current_slot) THEN
        EXECUTE format('SELECT max(seq) FROM "postrider".outbox_%s', current_slot) INTO drawn;
        SELECT s.slot INTO next_slot FROM "postrider".slot AS s
        WHERE s.opened_at IS NULL AND s.slot <> current_slot
        ORDER BY (s.slot - current_slot + 8) % 8 LIMIT 1;
        IF drawn IS NOT NULL AND next_slot IS NOT NULL THEN
            UPDATE "postrider".slot SET opened_at = now_at WHERE slot = next_slot;
            -- The wake-up half of the gate stays as it is.
            PERFORM setval('"postrider".gate'::regclass,
                           (coalesce(pg_sequence_last_value('"postrider".gate'::regclass), 0)
                            & ~7::bigint) | next_slot);
            rotated := true;
        END IF;
    END IF;
END
$body$;

-- After a restore into another cluster the transaction numbers of the rows mean nothing there.
-- What was settled becomes older than any transaction, the rest belongs to this one: it will be
-- published under the same ids. Settled rows have a seq of at most `drawn`; rows that were
-- inserted after the restore have higher ones. Rewrites every row that retention has left.
-- Returns how many rows are pending, or null when the term is not this relay's any more.
CREATE FUNCTION "postrider".rescan(wanted text, wanted_term bigint) RETURNS bigint
LANGUAGE plpgsql VOLATILE SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $body$
DECLARE
    cluster_id CONSTANT bigint := (SELECT system_identifier FROM pg_control_system());
    pending bigint;
BEGIN
    -- All relays at once: their positions speak of the same rows.
    PERFORM FROM "postrider".position AS p ORDER BY p.relay FOR UPDATE;
    IF NOT EXISTS (SELECT FROM "postrider".position AS p
                   WHERE p.relay = wanted AND p.term = wanted_term) THEN
        RETURN NULL;
    END IF;
    -- One statement, so that the rows and the new position are of the same snapshot.
    WITH foreign_position AS MATERIALIZED (
        SELECT * FROM "postrider".position AS p WHERE p.system_id <> cluster_id
    ), moved AS (
        UPDATE "postrider".outbox AS o
        SET tx = CASE WHEN (SELECT bool_and(
                            o.seq <= p.drawn
                            AND (pg_visible_in_snapshot(o.tx, p.snapshot)
                                 OR o.seq <= p.bookmark
                                    AND pg_visible_in_snapshot(o.tx, p.target)))
                            FROM foreign_position AS p)
                      THEN '3'::xid8 ELSE pg_current_xact_id() END
        WHERE EXISTS (SELECT FROM foreign_position)
        RETURNING o.tx
    ), reset AS (
        UPDATE "postrider".position AS p
        SET snapshot = pg_current_snapshot(), floor = 0, target = pg_current_snapshot(),
            target_floor = 0, bookmark = 0, system_id = cluster_id, updated_at = clock_timestamp()
        WHERE p.system_id <> cluster_id
    )
    SELECT count(*) INTO pending FROM moved WHERE moved.tx <> '3'::xid8;
    RETURN pending;
END
$body$;

REVOKE ALL ON FUNCTION "postrider".slot_settled(smallint) FROM PUBLIC;
REVOKE ALL ON FUNCTION "postrider".retain(interval) FROM PUBLIC;
REVOKE ALL ON FUNCTION "postrider".rescan(text, bigint) FROM PUBLIC;
GRANT EXECUTE ON FUNCTION "postrider".retain(interval), "postrider".rescan(text, bigint)
    TO postrider_relay;
GRANT SELECT ON "postrider".slot TO postrider_relay, postrider_operator;
