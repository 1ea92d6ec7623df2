-- operator_edit(): changes a dead letter in place under a new event id; on request it is redriven
-- at once. Payloads go to the audit as size and digest. Returns the new event id, or null when the
-- letter is not dead any more or was edited meanwhile.
--
-- `edit` has the fields below: `event_id` is the one that the letter must still have, `headers` are
-- JSON as text, `is_payload` says whether the payload changes, `is_redriven` whether to redrive,
-- and `digest_bytes_max` is the size of a payload at most that is digested. `payload_json` or
-- `payload_bytes` is the payload, byte for byte, or both are null. `channel` wakes the relay.

CREATE OR REPLACE FUNCTION "postrider".operator_edit(
    edit jsonb, payload_json text, payload_bytes bytea, actor text, reason text, channel text)
RETURNS uuid
LANGUAGE plpgsql VOLATILE SECURITY DEFINER
SET enable_seqscan = off SET jit = off SET plan_cache_mode = force_custom_plan
SET search_path = pg_catalog, pg_temp AS $body$
#variable_conflict use_column
DECLARE
    edited record;
    new_id uuid;
BEGIN
    SELECT e.* INTO edited FROM jsonb_to_record(edit) AS e (
        relay text, id bigint, event_id uuid, event_type text, subject text, headers text,
        is_payload boolean, is_redriven boolean, digest_bytes_max bigint);
    WITH old AS MATERIALIZED (
        SELECT l.id, l.dead_at, l.attempts, l.next_attempt_at, l.event_id, l.replaces, l.event_type,
               l.subject, l.headers, l.payload, l.payload_binary, l.payload_size, l.payload_omitted,
               l.slot, l.seq
        FROM "postrider".letter AS l
        WHERE l.relay = edited.relay AND l.id = edited.id AND l.event_id = edited.event_id
          AND (l.state = 'dead') IS TRUE AND l.resolved_at IS NULL
        FOR UPDATE
    ), changed AS (
        UPDATE "postrider".letter AS l
        SET event_id = "postrider".uuid7(), replaces = old.event_id, event_type = edited.event_type,
            subject = edited.subject, headers = edited.headers::jsonb,
            payload = CASE WHEN edited.is_payload THEN operator_edit.payload_json::json ELSE l.payload END,
            payload_binary = CASE WHEN edited.is_payload THEN operator_edit.payload_bytes
                                  ELSE l.payload_binary END,
            payload_size = CASE WHEN edited.is_payload
                                THEN coalesce(octet_length(operator_edit.payload_json),
                                              octet_length(operator_edit.payload_bytes), 0)
                                ELSE l.payload_size END,
            payload_omitted = l.payload_omitted AND NOT edited.is_payload,
            -- With a payload it is an event again.
            error_code = CASE WHEN edited.is_payload AND l.error_code = 'unreadable_row' THEN 'edited'
                              ELSE l.error_code END,
            state = CASE WHEN edited.is_redriven THEN 'retrying' ELSE l.state END,
            dead_at = CASE WHEN edited.is_redriven THEN NULL ELSE l.dead_at END,
            attempts = CASE WHEN edited.is_redriven THEN 0 ELSE l.attempts END,
            next_attempt_at = CASE WHEN edited.is_redriven THEN clock_timestamp()
                                   ELSE l.next_attempt_at END
        FROM old
        WHERE l.id = old.id AND l.event_id = old.event_id
          AND (l.state = 'dead') IS TRUE AND l.resolved_at IS NULL
        RETURNING l.*
    ), digest AS MATERIALIZED (
        SELECT CASE WHEN edited.is_payload AND old.payload_size <= edited.digest_bytes_max THEN (
                   SELECT encode(sha256(coalesce(convert_to(p.payload::text, 'UTF8'),
                                                 p.payload_binary)), 'hex')
                   FROM (SELECT old.payload, old.payload_binary WHERE NOT old.payload_omitted
                         UNION ALL
                         SELECT o.payload, o.payload_binary FROM "postrider".outbox AS o
                         WHERE old.payload_omitted AND o.seq = old.seq AND o.slot = old.slot) AS p
               ) END AS before,
               CASE WHEN edited.is_payload
                    THEN encode(sha256(coalesce(convert_to(operator_edit.payload_json, 'UTF8'),
                                                operator_edit.payload_bytes)), 'hex')
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
        SELECT operator_edit.actor, 'edit', operator_edit.reason, s.relay, s.id, s.seq, s.event_id,
               (SELECT jsonb_object_agg(b.key, b.value) FROM jsonb_each(s.before) AS b
                WHERE b.value IS DISTINCT FROM s.after -> b.key),
               (SELECT jsonb_object_agg(a.key, a.value) FROM jsonb_each(s.after) AS a
                WHERE a.value IS DISTINCT FROM s.before -> a.key)
        FROM said AS s
        UNION ALL
        SELECT operator_edit.actor, 'redrive', operator_edit.reason, c.relay, c.id, c.seq, c.event_id,
               jsonb_build_object('state', 'dead', 'dead_at', old.dead_at, 'attempts', old.attempts,
                                  'next_attempt_at', old.next_attempt_at),
               jsonb_build_object('state', c.state, 'dead_at', c.dead_at, 'attempts', c.attempts,
                                  'next_attempt_at', c.next_attempt_at)
        FROM changed AS c CROSS JOIN old
        WHERE edited.is_redriven
    )
    SELECT c.event_id FROM changed AS c
    INTO new_id;
    IF new_id IS NOT NULL AND edited.is_redriven THEN
        PERFORM pg_notify(operator_edit.channel, 'letters');
    END IF;
    RETURN new_id;
END
$body$;

COMMENT ON FUNCTION "postrider".operator_edit(jsonb, text, bytea, text, text, text)
    IS 'Changes a dead letter, with a record in the audit.';
REVOKE ALL ON FUNCTION "postrider".operator_edit(jsonb, text, bytea, text, text, text) FROM PUBLIC;
GRANT EXECUTE ON FUNCTION "postrider".operator_edit(jsonb, text, bytea, text, text, text)
    TO postrider_operator;
