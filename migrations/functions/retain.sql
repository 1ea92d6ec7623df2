-- retain(): seals, empties and rotates the turns that are due (docs/adr/0002); the relay calls it
-- about once a minute. It waits for no lock: a turn that is in use is left for the next call. READ
-- COMMITTED only.
--
-- SECURITY DEFINER, so that the relay's role needs no right to truncate. Row security is off, as in
-- turn_settled.sql.

CREATE OR REPLACE FUNCTION "postrider".retain(
    retention interval,
    OUT sealed integer, OUT emptied integer, OUT rows_at_most bigint, OUT rotated boolean)
LANGUAGE plpgsql VOLATILE SECURITY DEFINER SET row_security = off
SET search_path = pg_catalog, pg_temp AS $body$
DECLARE
    now_at CONSTANT timestamptz := clock_timestamp();
    gate CONSTANT smallint :=
        "postrider".sequence_value('"postrider".gate'::regclass);
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
    END IF;
    -- Calls of retention run one at a time. The lock is a row of ours, because anybody who may
    -- connect could take an advisory lock.
    PERFORM FROM "postrider".turn AS t WHERE t.turn = 0 FOR UPDATE SKIP LOCKED;
    IF NOT FOUND THEN
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
                -- Shuts writers out, so that every row there is visible to the statement that follows.
                EXECUTE format('LOCK TABLE %s IN SHARE MODE NOWAIT', due.leaves);
                IF "postrider".turn_settled(due.turn) THEN
                    UPDATE "postrider".turn SET sealed_at = now_at WHERE turn = due.turn;
                    sealed := sealed + 1;
                END IF;
            ELSIF NOT EXISTS (SELECT FROM "postrider".letter AS l
                              WHERE l.slot IN (due.turn, due.turn + 4) AND l.payload_omitted
                                AND l.resolved_at IS NULL) THEN
                EXECUTE format('LOCK TABLE %s IN ACCESS EXCLUSIVE MODE NOWAIT', due.leaves);
                -- Measured again: a writer may have chosen the slot just before it was left, and a
                -- letter that refers to a row here may have been written while we waited.
                IF EXISTS (SELECT FROM "postrider".letter AS l
                           WHERE l.slot IN (due.turn, due.turn + 4) AND l.payload_omitted
                             AND l.resolved_at IS NULL) THEN
                    -- The lock goes with this block, and the turn stays.
                    RAISE EXCEPTION USING ERRCODE = 'lock_not_available';
                ELSIF "postrider".turn_settled(due.turn) THEN
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

COMMENT ON FUNCTION "postrider".retain(interval)
    IS 'Empties the turns of the outbox whose retention is over.';
REVOKE ALL ON FUNCTION "postrider".retain(interval) FROM PUBLIC;
GRANT EXECUTE ON FUNCTION "postrider".retain(interval) TO postrider_relay;
