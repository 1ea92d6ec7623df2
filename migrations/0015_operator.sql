-- Acts of operators as functions, each with its record.
--
-- Why: an operator who may change the table of letters may do so past the audit. Here each act is a
-- function that writes its rows of the audit in the statement that changes the letters, with the login
-- of the session; no table is granted for it. So there is no change without a record.
--
-- Locks: ACCESS EXCLUSIVE on position, for as long as it takes to add a column without a rewrite.

SET LOCAL lock_timeout = '5s';

-- Parameters are named by number, as in the statements of src/outbox/sql.

-- Whether a dead letter can never be published as it is: the fault is in the row, and nobody has edited
-- the letter since it died. What a configuration or a limit may have refused is not hopeless.
CREATE FUNCTION "postrider".is_hopeless(
    letter_id bigint, error_code text, subject text, dead_at timestamptz) RETURNS boolean
LANGUAGE sql STABLE SECURITY DEFINER SET search_path = pg_catalog, pg_temp
RETURN ($2 IN ('missing_field', 'two_payloads', 'reserved_header', 'invalid_header',
               'headers_too_large', 'msg_id_collision', 'unreadable_row')
        OR $2 IN ('invalid_subject', 'subject_too_long') AND coalesce($3, '') <> '')
    AND $4 IS NOT NULL
    AND NOT EXISTS (SELECT FROM "postrider".audit AS a
                    WHERE a.letter_id = $1 AND a.action = 'edit' AND a.acted_at >= $4);

-- Copies the row of each unreadable letter anew, of those that can be read by now. Returns the letters
-- whose rows still cannot be read, or are gone.
CREATE FUNCTION "postrider".reread(letters bigint[]) RETURNS bigint[]
LANGUAGE plpgsql VOLATILE SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $body$
#variable_conflict use_column
DECLARE
    wanted record;
    unreadable bigint[] := '{}';
    is_copied boolean;
BEGIN
    FOR wanted IN
        SELECT l.id, l.seq, l.slot FROM "postrider".letter AS l
        WHERE l.id = ANY (letters) AND l.error_code = 'unreadable_row'
          AND l.resolved_at IS NULL AND l.state = 'dead'
        ORDER BY l.id
    LOOP
        is_copied := false;
        BEGIN
            UPDATE "postrider".letter AS l
            SET error_code = 'reread', error = 'its row could not be read, and was read anew since',
                tx = o.tx, event_version = o.event_version, occurred_at = o.occurred_at,
                event_id = o.event_id, event_type = o.event_type, kind = o.kind,
                aggregate_type = o.aggregate_type, aggregate_id = o.aggregate_id,
                aggregate_version = o.aggregate_version, source = o.source, subject = o.subject,
                content_type = o.content_type, headers = o.headers,
                correlation_id = o.correlation_id, causation_id = o.causation_id, actor = o.actor,
                payload = o.payload, payload_binary = o.payload_binary, payload_omitted = false,
                payload_size = coalesce(octet_length(o.payload::text),
                                        octet_length(o.payload_binary), 0)
            FROM "postrider".outbox AS o
            WHERE l.id = wanted.id AND o.seq = wanted.seq AND o.slot = wanted.slot
              AND (o.event_type, o.kind, o.content_type)
                  = ("postrider".legible(o.event_type), "postrider".legible(o.kind),
                     "postrider".legible(o.content_type))
              AND (o.aggregate_type, o.aggregate_id, o.source, o.subject)
                  IS NOT DISTINCT FROM
                  ("postrider".legible(o.aggregate_type), "postrider".legible(o.aggregate_id),
                   "postrider".legible(o.source), "postrider".legible(o.subject))
              AND (o.correlation_id, o.causation_id, o.actor)
                  IS NOT DISTINCT FROM
                  ("postrider".legible(o.correlation_id), "postrider".legible(o.causation_id),
                   "postrider".legible(o.actor))
            RETURNING true INTO is_copied;
        EXCEPTION WHEN OTHERS THEN
            is_copied := false;
        END;
        IF is_copied IS NOT TRUE THEN
            unreadable := unreadable || wanted.id;
        END IF;
    END LOOP;
    RETURN unreadable;
END
$body$;

-- Has letters tried again: one batch. The letters' rows are locked in the order of their seq, so that two
-- operators wait for each other and never in a circle. Who comes second finds the rows changed, and takes
-- the next ones.
--
-- $1 relay; each of the next, when not null, narrows the choice: $2 event type, $3 and $4 aggregate type
-- and id, $5 error code, $6 fingerprint, $7 dead since then at the earliest, $8 at the latest, $9 ids
-- $10 only above this seq, $11 rows at most, $12 actor, $13 null or reason, $14 channel that wakes the
-- relay, $15 dead or retrying, $16 also what is hopeless
CREATE FUNCTION "postrider".operator_redrive(
    text, text, text, text, text, text, timestamptz, timestamptz, bigint[], bigint, bigint, text, text,
    text, text, boolean, OUT ids bigint[], OUT last_seq bigint)
LANGUAGE plpgsql VOLATILE SECURITY DEFINER
SET enable_seqscan = off SET enable_sort = off SET enable_hashjoin = off SET enable_mergejoin = off
SET jit = off SET plan_cache_mode = force_custom_plan
SET search_path = pg_catalog, pg_temp AS $body$
#variable_conflict use_column
BEGIN
    IF $15 NOT IN ('dead', 'retrying') THEN
        RAISE EXCEPTION 'letters that are % cannot be redriven', $15 USING ERRCODE = '22023';
    ELSIF $9 IS NOT NULL THEN
        PERFORM "postrider".reread($9);
        -- Few letters, which no index has in order.
        PERFORM set_config('enable_sort', 'on', true);
    END IF;
    WITH chosen AS MATERIALIZED (
        SELECT l.id, l.state, l.dead_at, l.attempts, l.next_attempt_at
        FROM "postrider".letter AS l
        WHERE (l.relay = $1::text) IS TRUE AND (l.state = $15::text) IS TRUE AND l.resolved_at IS NULL
          -- Once more as what an index can be used for: relay and state unless there are ids, state unless
          -- there is a key. Without statistics the planner would take one index for as good as another.
          AND ($9::bigint[] IS NOT NULL OR l.relay = $1::text)
          AND ($9::bigint[] IS NOT NULL OR $4::text IS NOT NULL OR l.state = $15::text)
          AND ($2::text IS NULL OR l.event_type = $2::text)
          AND ($4::text IS NULL
               OR hashtextextended(l.aggregate_id, 0) = hashtextextended($4::text, 0)
                  AND l.aggregate_type = $3::text AND l.aggregate_id = $4::text)
          AND ($5::text IS NULL OR l.error_code = $5::text)
          AND ($6::text IS NULL OR l.fingerprint = $6::text)
          AND ($7::timestamptz IS NULL OR l.dead_at >= $7::timestamptz)
          AND ($8::timestamptz IS NULL OR l.dead_at <= $8::timestamptz)
          AND ($9::bigint[] IS NULL OR l.id = ANY ($9::bigint[]))
          AND ($16::boolean OR NOT "postrider".is_hopeless(l.id, l.error_code, l.subject, l.dead_at))
          -- What the letter has of such a row is not the event.
          AND l.error_code <> 'unreadable_row'
          AND l.seq > $10::bigint
        ORDER BY l.seq
        LIMIT $11::bigint
        FOR UPDATE
    ), changed AS (
        UPDATE "postrider".letter AS l
        SET state = 'retrying', dead_at = NULL, attempts = 0, next_attempt_at = clock_timestamp()
        FROM chosen
        WHERE l.id = chosen.id AND l.resolved_at IS NULL AND (l.state = $15::text) IS TRUE
        RETURNING l.id, l.relay, l.seq, l.event_id,
                  jsonb_build_object('state', chosen.state, 'dead_at', chosen.dead_at,
                                     'attempts', chosen.attempts,
                                     'next_attempt_at', chosen.next_attempt_at) AS before,
                  jsonb_build_object('state', l.state, 'dead_at', l.dead_at, 'attempts', l.attempts,
                                     'next_attempt_at', l.next_attempt_at) AS after
    ), recorded AS (
        INSERT INTO "postrider".audit (
            actor, action, reason, relay, letter_id, seq, event_id, before, after)
        SELECT $12::text, 'redrive', $13::text, c.relay, c.id, c.seq, c.event_id, c.before, c.after
        FROM changed AS c
        ORDER BY c.seq
    )
    SELECT coalesce(array_agg(c.id ORDER BY c.seq), '{}') AS ids, max(c.seq) AS last_seq
    FROM changed AS c
    INTO ids, last_seq;
    IF cardinality(ids) > 0 THEN
        PERFORM pg_notify($14, 'letters');
    END IF;
END
$body$;

-- Gives dead letters up for good: one batch. The mark has the relay load their keys, and let go what is
-- held behind them. Parameters and locks as those of operator_redrive.
CREATE FUNCTION "postrider".operator_discard(
    text, text, text, text, text, text, timestamptz, timestamptz, bigint[], bigint, bigint, text, text,
    text, OUT ids bigint[], OUT last_seq bigint)
LANGUAGE plpgsql VOLATILE SECURITY DEFINER
SET enable_seqscan = off SET enable_sort = off SET enable_hashjoin = off SET enable_mergejoin = off
SET jit = off SET plan_cache_mode = force_custom_plan
SET search_path = pg_catalog, pg_temp AS $body$
#variable_conflict use_column
BEGIN
    IF $9 IS NOT NULL THEN
        PERFORM set_config('enable_sort', 'on', true);
    END IF;
    WITH chosen AS MATERIALIZED (
        SELECT l.id, l.next_attempt_at
        FROM "postrider".letter AS l
        WHERE (l.relay = $1::text) IS TRUE AND (l.state = 'dead') IS TRUE AND l.resolved_at IS NULL
          -- Once more as what an index can be used for: relay and state unless there are ids, state unless
          -- there is a key. Without statistics the planner would take one index for as good as another.
          AND ($9::bigint[] IS NOT NULL OR l.relay = $1::text)
          AND ($9::bigint[] IS NOT NULL OR $4::text IS NOT NULL OR l.state = 'dead')
          AND ($2::text IS NULL OR l.event_type = $2::text)
          AND ($4::text IS NULL
               OR hashtextextended(l.aggregate_id, 0) = hashtextextended($4::text, 0)
                  AND l.aggregate_type = $3::text AND l.aggregate_id = $4::text)
          AND ($5::text IS NULL OR l.error_code = $5::text)
          AND ($6::text IS NULL OR l.fingerprint = $6::text)
          AND ($7::timestamptz IS NULL OR l.dead_at >= $7::timestamptz)
          AND ($8::timestamptz IS NULL OR l.dead_at <= $8::timestamptz)
          AND ($9::bigint[] IS NULL OR l.id = ANY ($9::bigint[]))
          AND l.seq > $10::bigint
        ORDER BY l.seq
        LIMIT $11::bigint
        FOR UPDATE
    ), changed AS (
        UPDATE "postrider".letter AS l
        SET resolution = 'discarded', resolved_by = $12::text, resolved_at = clock_timestamp(),
            reason = $13::text, next_attempt_at = clock_timestamp()
        FROM chosen
        WHERE l.id = chosen.id AND l.resolved_at IS NULL AND (l.state = 'dead') IS TRUE
        RETURNING l.id, l.relay, l.seq, l.event_id,
                  jsonb_build_object('resolution', NULL, 'resolved_by', NULL, 'resolved_at', NULL,
                                     'reason', NULL, 'next_attempt_at', chosen.next_attempt_at) AS before,
                  jsonb_build_object('resolution', l.resolution, 'resolved_by', l.resolved_by,
                                     'resolved_at', l.resolved_at, 'reason', l.reason,
                                     'next_attempt_at', l.next_attempt_at) AS after
    ), recorded AS (
        INSERT INTO "postrider".audit (
            actor, action, reason, relay, letter_id, seq, event_id, before, after)
        SELECT $12::text, 'discard', $13::text, c.relay, c.id, c.seq, c.event_id, c.before, c.after
        FROM changed AS c
        ORDER BY c.seq
    )
    SELECT coalesce(array_agg(c.id ORDER BY c.seq), '{}') AS ids, max(c.seq) AS last_seq
    FROM changed AS c
    INTO ids, last_seq;
    IF cardinality(ids) > 0 THEN
        PERFORM pg_notify($14, 'letters');
    END IF;
END
$body$;

-- Changes a dead letter in place under a new event id; on request it is redriven at once. Payloads go to
-- the audit as size and digest. Returns the new event id, or null when the letter is not dead any more or
-- was edited meanwhile.
--
-- $1 relay, $2 id, $3 event id that it must still have, $4 event type, $5 null or subject, $6 headers as
-- JSON, $7 whether the payload changes, $8 null or payload as JSON, $9 null or payload as bytes,
-- $10 whether to redrive, $11 actor, $12 reason, $13 channel that wakes the relay,
-- $14 bytes of a payload at most that is digested
CREATE FUNCTION "postrider".operator_edit(
    text, bigint, uuid, text, text, text, boolean, text, bytea, boolean, text, text, text, bigint)
RETURNS uuid
LANGUAGE plpgsql VOLATILE SECURITY DEFINER
SET enable_seqscan = off SET jit = off SET plan_cache_mode = force_custom_plan
SET search_path = pg_catalog, pg_temp AS $body$
#variable_conflict use_column
DECLARE
    new_id uuid;
BEGIN
    WITH old AS MATERIALIZED (
        SELECT l.id, l.dead_at, l.attempts, l.next_attempt_at, l.event_id, l.replaces, l.event_type,
               l.subject, l.headers, l.payload, l.payload_binary, l.payload_size, l.payload_omitted,
               l.slot, l.seq
        FROM "postrider".letter AS l
        WHERE l.relay = $1::text AND l.id = $2::bigint AND l.event_id = $3::uuid
          AND (l.state = 'dead') IS TRUE AND l.resolved_at IS NULL
        FOR UPDATE
    ), changed AS (
        UPDATE "postrider".letter AS l
        SET event_id = "postrider".uuid7(), replaces = old.event_id, event_type = $4::text,
            subject = $5::text, headers = $6::text::jsonb,
            payload = CASE WHEN $7::boolean THEN $8::text::json ELSE l.payload END,
            payload_binary = CASE WHEN $7::boolean THEN $9::bytea ELSE l.payload_binary END,
            payload_size = CASE WHEN $7::boolean
                                THEN coalesce(octet_length($8::text), octet_length($9::bytea), 0)
                                ELSE l.payload_size END,
            payload_omitted = l.payload_omitted AND NOT $7::boolean,
            -- With a payload it is an event again.
            error_code = CASE WHEN $7::boolean AND l.error_code = 'unreadable_row' THEN 'edited'
                              ELSE l.error_code END,
            state = CASE WHEN $10::boolean THEN 'retrying' ELSE l.state END,
            dead_at = CASE WHEN $10::boolean THEN NULL ELSE l.dead_at END,
            attempts = CASE WHEN $10::boolean THEN 0 ELSE l.attempts END,
            next_attempt_at = CASE WHEN $10::boolean THEN clock_timestamp()
                                   ELSE l.next_attempt_at END
        FROM old
        WHERE l.id = old.id AND l.event_id = old.event_id
          AND (l.state = 'dead') IS TRUE AND l.resolved_at IS NULL
        RETURNING l.*
    ), digest AS MATERIALIZED (
        SELECT CASE WHEN $7::boolean AND old.payload_size <= $14::bigint THEN (
                   SELECT encode(sha256(coalesce(convert_to(p.payload::text, 'UTF8'),
                                                 p.payload_binary)), 'hex')
                   FROM (SELECT old.payload, old.payload_binary WHERE NOT old.payload_omitted
                         UNION ALL
                         SELECT o.payload, o.payload_binary FROM "postrider".outbox AS o
                         WHERE old.payload_omitted AND o.seq = old.seq AND o.slot = old.slot) AS p
               ) END AS before,
               CASE WHEN $7::boolean
                    THEN encode(sha256(coalesce(convert_to($8::text, 'UTF8'), $9::bytea)), 'hex')
                    END AS after
        FROM old
    ), said AS (
        SELECT changed.relay, changed.id, changed.seq, old.event_id,
               jsonb_build_object(
                   'event_id', old.event_id, 'replaces', old.replaces, 'event_type', old.event_type,
                   'subject', old.subject, 'headers', old.headers,
                   'payload_size', old.payload_size, 'payload_omitted', old.payload_omitted,
                   'payload_sha256', digest.before) AS before,
               jsonb_build_object(
                   'event_id', changed.event_id, 'replaces', changed.replaces,
                   'event_type', changed.event_type, 'subject', changed.subject,
                   'headers', changed.headers, 'payload_size', changed.payload_size,
                   'payload_omitted', changed.payload_omitted,
                   'payload_sha256', digest.after) AS after
        FROM changed CROSS JOIN old CROSS JOIN digest
    ), recorded AS (
        INSERT INTO "postrider".audit (
            actor, action, reason, relay, letter_id, seq, event_id, before, after)
        SELECT $11::text, 'edit', $12::text, s.relay, s.id, s.seq, s.event_id,
               (SELECT jsonb_object_agg(b.key, b.value) FROM jsonb_each(s.before) AS b
                WHERE b.value IS DISTINCT FROM s.after -> b.key),
               (SELECT jsonb_object_agg(a.key, a.value) FROM jsonb_each(s.after) AS a
                WHERE a.value IS DISTINCT FROM s.before -> a.key)
        FROM said AS s
        UNION ALL
        SELECT $11::text, 'redrive', $12::text, c.relay, c.id, c.seq, c.event_id,
               jsonb_build_object('state', 'dead', 'dead_at', old.dead_at, 'attempts', old.attempts,
                                  'next_attempt_at', old.next_attempt_at),
               jsonb_build_object('state', c.state, 'dead_at', c.dead_at, 'attempts', c.attempts,
                                  'next_attempt_at', c.next_attempt_at)
        FROM changed AS c CROSS JOIN old
        WHERE $10::boolean
    )
    SELECT c.event_id FROM changed AS c
    INTO new_id;
    IF new_id IS NOT NULL AND $10 THEN
        PERFORM pg_notify($13, 'letters');
    END IF;
    RETURN new_id;
END
$body$;

-- Has events published again that the stream should hold and does not: they become letters that are tried
-- at once, so that a key keeps its order. One batch. Returns how many letters are tried now; a row that
-- became a letter meanwhile is left alone.
--
-- $1 relay, $2 seqs, $3 payload bytes at most: a larger payload stays in the outbox, $4 actor,
-- $5 channel that wakes the relay
CREATE FUNCTION "postrider".operator_reconcile(text, bigint[], bigint, text, text) RETURNS bigint
LANGUAGE plpgsql VOLATILE SECURITY DEFINER
SET enable_seqscan = off SET enable_hashjoin = off SET jit = off
SET plan_cache_mode = force_custom_plan
SET search_path = pg_catalog, pg_temp AS $body$
#variable_conflict use_column
DECLARE
    count_now bigint;
BEGIN
    WITH missing AS MATERIALIZED (
        SELECT o.*, CASE WHEN pg_column_compression(o.payload) IS NOT NULL
                              AND pg_column_size(o.payload) <= $3::bigint
                         THEN octet_length(o.payload::text)
                         WHEN o.payload IS NOT NULL THEN pg_column_size(o.payload)
                         ELSE octet_length(o.payload_binary) END AS payload_size
        FROM unnest($2::bigint[]) AS wanted (seq)
        CROSS JOIN LATERAL (
            SELECT r.* FROM "postrider".outbox AS r
            WHERE r.seq >= wanted.seq AND r.seq <= wanted.seq
            ORDER BY r.seq LIMIT 1) AS o
    ), lettered AS (
        INSERT INTO "postrider".letter AS l (
            relay, state, holds, attempts, error_code, error, fingerprint, next_attempt_at,
            payload_size, payload_omitted, tx, seq, slot, event_version, occurred_at, event_id,
            event_type, kind, aggregate_type, aggregate_id, aggregate_version, source, subject,
            content_type, headers, correlation_id, causation_id, actor, payload, payload_binary)
        SELECT $1::text, 'retrying', true, 0, 'missing', 'it was published, and the stream does not hold it',
               'missing', clock_timestamp(), coalesce(m.payload_size, 0),
               coalesce(m.payload_size > $3::bigint, false), m.tx, m.seq, m.slot, m.event_version,
               m.occurred_at, m.event_id, m.event_type, m.kind, m.aggregate_type, m.aggregate_id,
               m.aggregate_version, m.source, m.subject, m.content_type, m.headers, m.correlation_id,
               m.causation_id, m.actor,
               CASE WHEN m.payload_size <= $3::bigint THEN m.payload END,
               CASE WHEN m.payload_size <= $3::bigint THEN m.payload_binary END
        FROM missing AS m
        ORDER BY m.seq
        ON CONFLICT (relay, seq) DO UPDATE
            SET state = 'retrying', attempts = 0, next_attempt_at = clock_timestamp(), dead_at = NULL,
                holds = true, resolution = NULL, resolved_by = NULL, resolved_at = NULL,
                stream_seq = NULL
            WHERE l.resolution = 'published'
        RETURNING l.id, l.relay, l.seq, l.event_id
    ), recorded AS (
        INSERT INTO "postrider".audit (actor, action, relay, letter_id, seq, event_id, before, after)
        SELECT $4::text, 'reconcile', l.relay, l.id, l.seq, l.event_id,
               '{"resolution": "published"}', '{"state": "retrying"}'
        FROM lettered AS l
        ORDER BY l.seq
    )
    SELECT count(*) AS letters
    FROM lettered
    INTO count_now;
    IF count_now > 0 THEN
        PERFORM pg_notify($5, 'letters');
    END IF;
    RETURN count_now;
END
$body$;

-- Why nothing is published, as one word; set and cleared with the note, which is for people.
ALTER TABLE "postrider".position ADD COLUMN gate_kind text;

-- Asks a relay that waits for it to accept the stream as it is. One that does not wait is not asked, or it
-- would accept a loss of later without anybody knowing. $1 relay, $2 actor, $3 channel that wakes the
-- relay. Returns whether it was asked.
CREATE FUNCTION "postrider".operator_heal(text, text, text) RETURNS boolean
LANGUAGE plpgsql VOLATILE SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $body$
DECLARE
    waits boolean;
BEGIN
    UPDATE "postrider".position AS p SET heal_requested_at = clock_timestamp()
    WHERE p.relay = $1 AND p.gate_kind = 'broker_regressed'
    RETURNING true INTO waits;
    IF waits THEN
        -- It is about no letter.
        INSERT INTO "postrider".audit (actor, action, relay, letter_id, seq, event_id, before, after)
        VALUES ($2, 'heal', $1, 0, 0, '00000000-0000-0000-0000-000000000000', '{}', '{}');
        PERFORM pg_notify($3, 'heal');
    END IF;
    RETURN coalesce(waits, false);
END
$body$;

REVOKE ALL ON FUNCTION "postrider".is_hopeless(bigint, text, text, timestamptz) FROM PUBLIC;
REVOKE ALL ON FUNCTION "postrider".reread(bigint[]) FROM PUBLIC;
REVOKE ALL ON FUNCTION "postrider".operator_redrive(
    text, text, text, text, text, text, timestamptz, timestamptz, bigint[], bigint, bigint, text, text,
    text, text, boolean) FROM PUBLIC;
REVOKE ALL ON FUNCTION "postrider".operator_discard(
    text, text, text, text, text, text, timestamptz, timestamptz, bigint[], bigint, bigint, text, text,
    text) FROM PUBLIC;
REVOKE ALL ON FUNCTION "postrider".operator_edit(
    text, bigint, uuid, text, text, text, boolean, text, bytea, boolean, text, text, text, bigint)
    FROM PUBLIC;
REVOKE ALL ON FUNCTION "postrider".operator_reconcile(text, bigint[], bigint, text, text) FROM PUBLIC;
REVOKE ALL ON FUNCTION "postrider".operator_heal(text, text, text) FROM PUBLIC;
GRANT EXECUTE ON FUNCTION
    "postrider".is_hopeless(bigint, text, text, timestamptz),
    "postrider".operator_redrive(
        text, text, text, text, text, text, timestamptz, timestamptz, bigint[], bigint, bigint, text,
        text, text, text, boolean),
    "postrider".operator_discard(
        text, text, text, text, text, text, timestamptz, timestamptz, bigint[], bigint, bigint, text,
        text, text),
    "postrider".operator_edit(
        text, bigint, uuid, text, text, text, boolean, text, bytea, boolean, text, text, text, bigint),
    "postrider".operator_reconcile(text, bigint[], bigint, text, text),
    "postrider".operator_heal(text, text, text)
    TO postrider_operator;
GRANT EXECUTE ON FUNCTION "postrider".is_hopeless(bigint, text, text, timestamptz) TO postrider_relay;

-- What an operator could do past the audit.
REVOKE INSERT, UPDATE, DELETE ON "postrider".letter, "postrider".audit, "postrider".position
    FROM postrider_operator;
