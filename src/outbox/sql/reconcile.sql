-- Has events published again that the stream should hold and does not: they become letters that are
-- tried at once, with a row of the audit each, so that a key keeps its order. One batch.
--
-- $1 text relay, $2 bigint[] seq, $3 bigint payload bytes at most: a larger payload stays in the outbox,
-- $4 text actor, $5 text channel that wakes the relay
-- Columns: letters int8 (that are tried now; a row that became a letter meanwhile is left alone)
-- Rows: exactly one. Index: primary key of each leaf, letter_once. Locks: the letters' rows.
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
SELECT count(*) AS letters,
       (SELECT pg_notify($5::text, 'letters') WHERE EXISTS (SELECT FROM lettered)) AS notified
FROM lettered
