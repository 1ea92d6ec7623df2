-- operator_reconcile(): has events published again that the stream should hold and does not: they
-- become letters that are tried at once, so that a key keeps its order. One batch. Returns the
-- number of letters that are tried now; a row that became a letter meanwhile is left alone.
--
-- $1 relay, $2 seqs, $3 payload bytes at most: a larger payload stays in the outbox, $4 actor, $5
-- channel that wakes the relay

CREATE OR REPLACE FUNCTION "postrider".operator_reconcile(text, bigint[], bigint, text, text) RETURNS bigint
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

COMMENT ON FUNCTION "postrider".operator_reconcile(text, bigint[], bigint, text, text)
    IS 'Has events published again that a stream has lost.';
REVOKE ALL ON FUNCTION "postrider".operator_reconcile(text, bigint[], bigint, text, text)
    FROM PUBLIC;
GRANT EXECUTE ON FUNCTION "postrider".operator_reconcile(text, bigint[], bigint, text, text)
    TO postrider_operator;
