-- operator_edit(): changes a dead letter in place under a new event id; on request it is redriven
-- at once. Payloads go to the audit as size and digest. Returns the new event id, or null when the
-- letter is not dead any more or was edited meanwhile.
--
-- $1 relay, $2 id, $3 event id that it must still have, $4 event type, $5 null or subject, $6
-- headers as JSON, $7 whether the payload changes, $8 null or payload as JSON, $9 null or payload
-- as bytes, $10 whether to redrive, $11 actor, $12 reason, $13 channel that wakes the relay, $14
-- bytes of a payload at most that is digested

CREATE OR REPLACE FUNCTION "postrider".operator_edit(
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

COMMENT ON FUNCTION "postrider".operator_edit(
    text, bigint, uuid, text, text, text, boolean, text, bytea, boolean, text, text, text, bigint)
    IS 'Changes a dead letter, with a record in the audit.';
REVOKE ALL ON FUNCTION "postrider".operator_edit(
    text, bigint, uuid, text, text, text, boolean, text, bytea, boolean, text, text, text, bigint) FROM PUBLIC;
GRANT EXECUTE ON FUNCTION "postrider".operator_edit(
    text, bigint, uuid, text, text, text, boolean, text, bytea, boolean, text, text, text, bigint) TO postrider_operator;
