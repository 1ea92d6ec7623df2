-- reread(): copies the row of each unreadable letter anew, of those that can be read by now.
-- Returns the letters whose rows still cannot be read, or are gone. operator_redrive() calls it.

CREATE OR REPLACE FUNCTION "postrider".reread(letters bigint[]) RETURNS bigint[]
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

COMMENT ON FUNCTION "postrider".reread(bigint[])
    IS 'Copies rows that could not be read, once they can.';
REVOKE ALL ON FUNCTION "postrider".reread(bigint[]) FROM PUBLIC;
