-- Blocked keys by pages, rows that cannot be read, the retention of letters and the
-- audit, and the erasure of a key.
--
-- Locks: SHARE on letter while an index over the letters that block their keys is built.

SET LOCAL lock_timeout = '5s';

-- The letters that block their keys (src/outbox/sql/blocked_keys.sql), page by page. It also serves
-- whatever letter_holding did.
CREATE INDEX letter_blocking
    ON "postrider".letter (relay, id)
    WHERE next_attempt_at IS NOT NULL OR state = 'dead' AND holds AND resolved_at IS NULL;
DROP INDEX "postrider".letter_holding;

-- A text that every driver can read: as it is, or with each odd byte escaped, when the storage is
-- damaged and the text holds what is no character.
CREATE FUNCTION "postrider".legible(value text) RETURNS text
LANGUAGE plpgsql STABLE STRICT SET search_path = pg_catalog, pg_temp AS $body$
BEGIN
    PERFORM convert_from(textsend(value), getdatabaseencoding());
    RETURN value;
EXCEPTION WHEN OTHERS THEN
    RETURN encode(textsend(value), 'escape');
END
$body$;

-- The first row above the bookmark whose block cannot be read, or null. Nothing but its place can be
-- known of such a row: not even whether its transaction was committed.
CREATE FUNCTION "postrider".next_damaged(bookmark bigint, floor bigint, late xid8[])
RETURNS bigint
LANGUAGE plpgsql VOLATILE
SET enable_seqscan = off SET enable_bitmapscan = off SET enable_sort = off SET jit = off
SET search_path = pg_catalog, pg_temp AS $body$
DECLARE
    low bigint := bookmark;
    high bigint := "postrider".sequence_value('"postrider".outbox_seq_seq'::regclass);
    middle bigint;
    step bigint := 256;
    is_readable boolean;
    is_found boolean := false;
BEGIN
    -- Everything can be read up to `low`, and not up to `high` once that is found.
    WHILE low < high LOOP
        middle := CASE WHEN is_found THEN low + (high - low) / 2 ELSE least(high, low + step) END;
        step := step * 2;
        BEGIN
            PERFORM count(o.tx) FROM "postrider".outbox AS o
            WHERE o.seq > greatest(low, floor) AND o.seq <= middle;
            PERFORM count(l.event_type)
            FROM unnest(late) AS x (tx)
            JOIN LATERAL (SELECT o.event_type FROM "postrider".outbox AS o
                          WHERE o.tx >= x.tx AND o.tx <= x.tx
                            AND o.seq > low AND o.seq <= middle
                          ORDER BY o.tx, o.seq) AS l ON true;
            is_readable := true;
        EXCEPTION WHEN data_corrupted OR internal_error OR io_error OR index_corrupted THEN
            is_readable := false;
        END;
        IF is_readable THEN
            low := middle;
        ELSE
            is_found := true;
            high := middle;
        END IF;
        IF is_found AND high - low <= 1 THEN
            RETURN high;
        END IF;
    END LOOP;
    RETURN NULL;
END
$body$;

-- What can be read of a row whose storage is damaged: its columns without headers and payload, or of
-- a row whose block is lost its place alone. Such a row keeps its leaf, so that it may be mended there.
CREATE FUNCTION "postrider".salvage(
    wanted bigint,
    OUT tx xid8, OUT seq bigint, OUT slot smallint, OUT event_version integer,
    OUT occurred_at timestamptz, OUT event_id uuid, OUT event_type text, OUT kind text,
    OUT aggregate_type text, OUT aggregate_id text, OUT aggregate_version bigint, OUT source text,
    OUT subject text, OUT content_type text, OUT headers jsonb, OUT correlation_id text,
    OUT causation_id text, OUT actor text, OUT payload json, OUT payload_binary bytea,
    OUT payload_size bigint)
LANGUAGE plpgsql VOLATILE
SET enable_seqscan = off SET enable_bitmapscan = off SET jit = off
SET search_path = pg_catalog, pg_temp AS $body$
DECLARE
    leaf smallint;
    is_there boolean;
BEGIN
    headers := '{}';
    BEGIN
        SELECT o.tx, o.seq, o.slot, o.event_version, o.occurred_at, o.event_id,
               "postrider".legible(o.event_type), "postrider".legible(o.kind),
               "postrider".legible(o.aggregate_type), "postrider".legible(o.aggregate_id),
               o.aggregate_version, "postrider".legible(o.source), "postrider".legible(o.subject),
               "postrider".legible(o.content_type), "postrider".legible(o.correlation_id),
               "postrider".legible(o.causation_id), "postrider".legible(o.actor),
               coalesce(pg_column_size(o.payload), pg_column_size(o.payload_binary), 0)
        INTO tx, seq, slot, event_version, occurred_at, event_id, event_type, kind, aggregate_type,
             aggregate_id, aggregate_version, source, subject, content_type, correlation_id,
             causation_id, actor, payload_size
        FROM "postrider".outbox AS o
        WHERE o.seq = wanted;
    EXCEPTION WHEN OTHERS THEN
        seq := NULL;
    END;
    IF seq IS NOT NULL THEN
        RETURN;
    END IF;
    -- Number 3 is older than every transaction here, and no row has the nil UUID.
    tx := '3'; seq := wanted; slot := 0; event_version := 1; occurred_at := clock_timestamp();
    event_id := '00000000-0000-0000-0000-000000000000'; event_type := 'unreadable';
    kind := 'domain'; content_type := 'application/octet-stream'; payload_size := 0;
    FOR leaf IN 0..7 LOOP
        BEGIN
            EXECUTE format('SELECT count(o.tx) > 0 FROM "postrider".outbox_%s AS o WHERE o.seq = $1',
                           leaf)
            INTO is_there USING wanted;
        EXCEPTION WHEN OTHERS THEN
            is_there := true;
        END;
        IF is_there THEN
            slot := leaf;
        END IF;
    END LOOP;
END
$body$;

REVOKE ALL ON FUNCTION "postrider".legible(text) FROM PUBLIC;
REVOKE ALL ON FUNCTION "postrider".next_damaged(bigint, bigint, xid8[]) FROM PUBLIC;
REVOKE ALL ON FUNCTION "postrider".salvage(bigint) FROM PUBLIC;
GRANT EXECUTE ON FUNCTION "postrider".legible(text),
    "postrider".next_damaged(bigint, bigint, xid8[]), "postrider".salvage(bigint)
    TO postrider_relay, postrider_operator;

-- Resolved letters, the oldest first.
CREATE INDEX letter_resolved
    ON "postrider".letter (resolved_at)
    WHERE resolved_at IS NOT NULL AND next_attempt_at IS NULL;

-- Deletes resolved letters and rows of the audit that are old, some of each; the relay calls it from time
-- to time. A letter whose row the outbox still has stays: it says that the row is not to be published
-- again. Returns how many went.
CREATE FUNCTION "postrider".forget(
    letter_retention interval, audit_retention interval, most bigint,
    OUT letters bigint, OUT audits bigint)
LANGUAGE plpgsql VOLATILE SECURITY DEFINER
SET enable_seqscan = off SET enable_bitmapscan = off SET jit = off
SET search_path = pg_catalog, pg_temp AS $body$
#variable_conflict use_column
BEGIN
    WITH old AS MATERIALIZED (
        SELECT l.id FROM "postrider".letter AS l
        WHERE l.resolved_at IS NOT NULL AND l.next_attempt_at IS NULL
          AND l.resolved_at < clock_timestamp() - letter_retention
          AND NOT EXISTS (SELECT FROM "postrider".outbox AS o
                          WHERE o.seq = l.seq AND o.slot = l.slot)
        ORDER BY l.resolved_at LIMIT most
        FOR UPDATE SKIP LOCKED
    ), gone AS (
        DELETE FROM "postrider".letter AS l USING old WHERE l.id = old.id RETURNING l.id
    )
    SELECT count(*) INTO letters FROM gone;
    WITH first AS MATERIALIZED (
        SELECT a.id, a.acted_at FROM "postrider".audit AS a ORDER BY a.id LIMIT most
    ), gone AS (
        DELETE FROM "postrider".audit AS a USING first
        WHERE a.id = first.id AND first.acted_at < clock_timestamp() - audit_retention
        RETURNING a.id
    )
    SELECT count(*) INTO audits FROM gone;
END
$body$;

-- Erases for the law's sake what is kept of one key: its settled rows of the outbox and its resolved
-- letters, and what the audit quotes of these. One batch of rows. Rows that are not settled and letters
-- that are not resolved are left alone and counted: an event without its payload would be another event.
--
-- They are deleted, and not emptied: a healing would publish an empty row.
--
-- $1 relay that is named in the audit, $2 and $3 aggregate type and id, $4 only rows above this seq,
-- $5 rows looked at, at most, $6 actor, $7 reason. `next` is null when this was the last batch.
CREATE FUNCTION "postrider".operator_erase(
    text, text, text, bigint, bigint, text, text,
    OUT rows_erased bigint, OUT rows_left bigint, OUT letters_erased bigint, OUT letters_left bigint,
    OUT next bigint)
LANGUAGE plpgsql VOLATILE SECURITY DEFINER
SET jit = off SET plan_cache_mode = force_custom_plan
SET search_path = pg_catalog, pg_temp AS $body$
#variable_conflict use_column
DECLARE
    last_seq bigint;
BEGIN
    SELECT max(s.seq) INTO last_seq
    FROM (SELECT o.seq FROM "postrider".outbox AS o
          WHERE o.seq > $4 ORDER BY o.seq LIMIT $5) AS s;
    WITH of_key AS MATERIALIZED (
        SELECT o.seq, o.slot,
               EXISTS (SELECT FROM "postrider".position)
               AND NOT EXISTS (
                   SELECT FROM "postrider".position AS p
                   WHERE NOT pg_visible_in_snapshot(o.tx, p.snapshot)
                     AND NOT (o.seq <= p.bookmark AND pg_visible_in_snapshot(o.tx, p.target)))
               AND NOT EXISTS (
                   SELECT FROM "postrider".letter AS l
                   WHERE l.seq = o.seq AND l.resolved_at IS NULL) AS is_settled
        FROM "postrider".outbox AS o
        WHERE o.seq > $4 AND o.seq <= last_seq
          AND o.aggregate_type = $2 AND o.aggregate_id = $3
    ), erased AS (
        DELETE FROM "postrider".outbox AS o USING of_key AS k
        WHERE k.is_settled AND o.seq = k.seq AND o.slot = k.slot
        RETURNING o.seq
    )
    SELECT (SELECT count(*) FROM erased), (SELECT count(*) FROM of_key WHERE NOT is_settled)
    INTO rows_erased, rows_left;
    WITH of_key AS MATERIALIZED (
        SELECT l.id, l.resolved_at IS NOT NULL AND l.next_attempt_at IS NULL AS is_over
        FROM "postrider".letter AS l
        WHERE l.aggregate_type = $2 AND l.aggregate_id = $3 AND $4 = 0
    ), erased AS (
        DELETE FROM "postrider".letter AS l USING of_key AS k
        WHERE k.is_over AND l.id = k.id
        RETURNING l.id
    ), scrubbed AS (
        UPDATE "postrider".audit AS a
        SET before = a.before - '{headers,subject,payload_sha256}'::text[],
            after = a.after - '{headers,subject,payload_sha256}'::text[]
        FROM erased AS e WHERE a.letter_id = e.id
    )
    SELECT (SELECT count(*) FROM erased), (SELECT count(*) FROM of_key WHERE NOT is_over)
    INTO letters_erased, letters_left;
    next := last_seq;
    IF rows_erased > 0 OR letters_erased > 0 OR $4 = 0 THEN
        -- The key itself may be what has to go, so the audit has its digest.
        INSERT INTO "postrider".audit (
            actor, action, reason, relay, letter_id, seq, event_id, before, after)
        VALUES ($6, 'erase', $7, $1, 0, 0, '00000000-0000-0000-0000-000000000000',
                jsonb_build_object(
                    'key_sha256', encode(sha256(convert_to($2 || '/' || $3, 'UTF8')), 'hex'),
                    'rows', rows_erased, 'letters', letters_erased),
                jsonb_build_object('rows_left', rows_left, 'letters_left', letters_left));
    END IF;
END
$body$;

REVOKE ALL ON FUNCTION "postrider".operator_erase(text, text, text, bigint, bigint, text, text)
    FROM PUBLIC;
GRANT EXECUTE ON FUNCTION
    "postrider".operator_erase(text, text, text, bigint, bigint, text, text) TO postrider_operator;
REVOKE ALL ON FUNCTION "postrider".forget(interval, interval, bigint) FROM PUBLIC;
GRANT EXECUTE ON FUNCTION "postrider".forget(interval, interval, bigint) TO postrider_relay;

-- Seals, empties and rotates the turns that are due; the relay calls it about once a minute. It waits for no
-- lock: what is in use is left for the next call. SECURITY DEFINER, so that the relay's role needs
-- no right to truncate.
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
    -- One at a time. A row of ours, because anybody who may connect could take an advisory lock.
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
                -- Looked at again: a writer may have chosen the slot just before it was left, and a
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
