-- Retention of the outbox without DELETE, and what a restore into another cluster needs.
--
-- Why: the four turns of two slots each (one for rows that come while the relay sleeps) take new
-- rows one after the other. A turn that is over is sealed once all its rows are settled, and
-- emptied by TRUNCATE when it has been sealed for the retention. A turn that cannot be emptied
-- stays as it is, and when none is empty the current one just grows: nothing that is not settled
-- is ever removed, and no insert fails or waits. See docs/adr/0002.
--
-- Locks: only objects that this file creates.

SET LOCAL lock_timeout = '5s';

CREATE TABLE "postrider".turn (
    turn       smallint PRIMARY KEY,
    opened_at  timestamptz,  -- since when rows go there, or went there; null: empty
    sealed_at  timestamptz,  -- since when it is known that all its rows are settled
    emptied_at timestamptz,
    CONSTRAINT turn_sealed_after_opened CHECK (sealed_at IS NULL OR opened_at IS NOT NULL)
);

COMMENT ON TABLE "postrider".turn IS
    'The turns of the outbox: turn n is made of the leaves outbox_<n> and outbox_<n + 4>.';

INSERT INTO "postrider".turn (turn, opened_at)
SELECT n, CASE WHEN n = 0 THEN clock_timestamp() END FROM generate_series(0, 3) AS n;

-- Whether every relay has settled every visible row of a turn. Reads only above the positions.
CREATE FUNCTION "postrider".turn_settled(wanted smallint) RETURNS boolean
LANGUAGE sql VOLATILE
SET enable_seqscan = off SET enable_bitmapscan = off SET enable_sort = off SET jit = off
SET search_path = pg_catalog, pg_temp
RETURN EXISTS (SELECT FROM "postrider".position) AND NOT EXISTS (
    SELECT FROM "postrider".position AS p
    WHERE (SELECT true FROM "postrider".outbox AS o
           WHERE o.slot IN (wanted, wanted + 4) AND o.seq > p.floor
             AND o.tx >= pg_snapshot_xmax(p.snapshot)
             AND NOT (o.seq <= p.bookmark AND pg_visible_in_snapshot(o.tx, p.target))
           ORDER BY o.seq LIMIT 1)
       OR (SELECT true FROM pg_snapshot_xip(p.snapshot) AS x (tx)
           CROSS JOIN LATERAL (
               SELECT FROM "postrider".outbox AS l
               WHERE l.slot IN (wanted, wanted + 4) AND l.tx >= x.tx AND l.tx <= x.tx
                 AND NOT (l.seq <= p.bookmark AND pg_visible_in_snapshot(l.tx, p.target))
               ORDER BY l.tx, l.seq LIMIT 1) AS late
           LIMIT 1));

-- Seals, empties and rotates the turns that are due; the relay calls it about once a minute. It waits for no
-- lock: what is in use is left for the next call. SECURITY DEFINER, so that the relay's role needs
-- no right to truncate.
CREATE FUNCTION "postrider".retain(
    retention interval,
    OUT sealed integer, OUT emptied integer, OUT rows_at_most bigint, OUT rotated boolean)
LANGUAGE plpgsql VOLATILE SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $body$
DECLARE
    now_at CONSTANT timestamptz := clock_timestamp();
    gate CONSTANT smallint :=
        coalesce(pg_sequence_last_value('"postrider".gate'::regclass), 0);
    current_turn CONSTANT smallint := gate & 3;
    due record;
    drawn bigint;
    next_turn smallint;
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

    UPDATE "postrider".turn SET opened_at = now_at, sealed_at = NULL
    WHERE turn = current_turn AND (opened_at IS NULL OR sealed_at IS NOT NULL);

    FOR due IN
        SELECT t.turn, t.sealed_at,
               format('"postrider".outbox_%s, "postrider".outbox_%s', t.turn, t.turn + 4) AS leaves
        FROM "postrider".turn AS t
        WHERE t.turn <> current_turn AND t.opened_at IS NOT NULL
          AND (t.sealed_at IS NULL OR t.sealed_at <= now_at - retention)
        ORDER BY t.opened_at
    LOOP
        BEGIN
            IF due.sealed_at IS NULL THEN
                -- Shuts writers out, so that every row there is visible to the look that follows.
                EXECUTE format('LOCK TABLE %s IN SHARE MODE NOWAIT', due.leaves);
                IF "postrider".turn_settled(due.turn) THEN
                    UPDATE "postrider".turn SET sealed_at = now_at WHERE turn = due.turn;
                    sealed := sealed + 1;
                END IF;
            ELSIF NOT EXISTS (SELECT FROM "postrider".letter AS l
                              WHERE l.slot IN (due.turn, due.turn + 4) AND l.payload_omitted
                                AND l.resolved_at IS NULL) THEN
                EXECUTE format('LOCK TABLE %s IN ACCESS EXCLUSIVE MODE NOWAIT', due.leaves);
                -- Looked at again: a writer may have chosen the slot just before it was left.
                IF "postrider".turn_settled(due.turn) THEN
                    SELECT max(o.seq) - min(o.seq) + 1 INTO drawn
                    FROM "postrider".outbox AS o WHERE o.slot IN (due.turn, due.turn + 4);
                    EXECUTE format('TRUNCATE %s', due.leaves);
                    UPDATE "postrider".turn
                    SET opened_at = NULL, sealed_at = NULL, emptied_at = now_at
                    WHERE turn = due.turn;
                    emptied := emptied + 1;
                    rows_at_most := rows_at_most + coalesce(drawn, 0);
                ELSE
                    UPDATE "postrider".turn SET sealed_at = NULL WHERE turn = due.turn;
                END IF;
            END IF;
        EXCEPTION WHEN lock_not_available THEN
            NULL;
        END;
    END LOOP;

    -- Two of the four turns share the retention; the other two are the current and the next one.
    IF (SELECT t.opened_at <= now_at - retention / 2
        FROM "postrider".turn AS t WHERE t.turn = current_turn) THEN
        SELECT max(o.seq) INTO drawn
        FROM "postrider".outbox AS o WHERE o.slot IN (current_turn, current_turn + 4);
        SELECT t.turn INTO next_turn FROM "postrider".turn AS t
        WHERE t.opened_at IS NULL AND t.turn <> current_turn
        ORDER BY (t.turn - current_turn + 4) % 4 LIMIT 1;
        IF drawn IS NOT NULL AND next_turn IS NOT NULL THEN
            UPDATE "postrider".turn SET opened_at = now_at WHERE turn = next_turn;
            -- The wake-up half of the gate stays as it is.
            PERFORM setval('"postrider".gate'::regclass, gate & 4 | next_turn);
            rotated := true;
        END IF;
    END IF;
END
$body$;

-- After a restore into another cluster the transaction numbers of the rows mean nothing there.
-- What was settled gets the number 3, the rest 4; both are older than any transaction here. In the
-- new position 4 counts as late, so those rows are published, under the same ids. (The number of
-- this transaction would not do: whether its own snapshot shows it depends on what others do.)
-- Settled rows have a seq of at most `drawn`; rows that were inserted after the restore have higher
-- ones. Rewrites every row that retention has left. Returns how many rows are pending, or null when
-- the term is not this relay's any more.
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
                      THEN '3'::xid8 ELSE '4'::xid8 END
        WHERE EXISTS (SELECT FROM foreign_position)
        RETURNING o.tx
    ), present AS MATERIALIZED (
        SELECT format('4:%s:4%s', pg_snapshot_xmax(s.snapshot),
                      (SELECT string_agg(',' || x.tx::text, '' ORDER BY x.tx)
                       FROM pg_snapshot_xip(s.snapshot) AS x (tx)))::pg_snapshot AS snapshot
        FROM pg_current_snapshot() AS s (snapshot)
    ), reset AS (
        UPDATE "postrider".position AS p
        SET snapshot = present.snapshot, floor = 0, target = present.snapshot,
            target_floor = 0, bookmark = 0, system_id = cluster_id, updated_at = clock_timestamp()
        FROM present WHERE p.system_id <> cluster_id
    )
    SELECT count(*) INTO pending FROM moved WHERE moved.tx <> '3'::xid8;
    RETURN pending;
END
$body$;

REVOKE ALL ON FUNCTION "postrider".turn_settled(smallint) FROM PUBLIC;
REVOKE ALL ON FUNCTION "postrider".retain(interval) FROM PUBLIC;
REVOKE ALL ON FUNCTION "postrider".rescan(text, bigint) FROM PUBLIC;
GRANT EXECUTE ON FUNCTION "postrider".retain(interval), "postrider".rescan(text, bigint)
    TO postrider_relay;
GRANT SELECT ON "postrider".turn TO postrider_relay, postrider_operator;
