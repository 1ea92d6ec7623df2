-- Records events that leave the fast path, in the settlement's transaction. A second run of the
-- same settlement changes nothing.
--
-- $1 text relay, $2 bigint term, $3 bigint[] seq, $4 text[] state (dead | held), $5 boolean[] holds,
-- $6 integer[] attempts, $7 text[] error_code, $8 text[] error, $9 text[] fingerprint,
-- $10 bigint payload bytes at most: a larger payload stays in the outbox (payload_omitted)
-- Columns: seq int8 (the letters that are new)
-- Rows: up to the length of $3. Index: primary key of each leaf, one probe a leaf and event.
-- Locks: the new rows.
INSERT INTO "postrider".letter (
    relay, state, holds, attempts, error_code, error, fingerprint, dead_at,
    payload_size, payload_omitted, tx, seq, slot, event_version, occurred_at, event_id,
    event_type, kind, aggregate_type, aggregate_id, aggregate_version, source, subject,
    content_type, headers, correlation_id, causation_id, actor, payload, payload_binary)
SELECT $1::text, failed.state, failed.holds, failed.attempts, failed.error_code, failed.error,
       failed.fingerprint, CASE WHEN failed.state = 'dead' THEN clock_timestamp() END,
       coalesce(o.payload_size, 0), coalesce(o.payload_size > $10::bigint, false), o.tx, o.seq,
       o.slot, o.event_version, o.occurred_at, o.event_id, o.event_type, o.kind, o.aggregate_type,
       o.aggregate_id, o.aggregate_version, o.source, o.subject, o.content_type, o.headers,
       o.correlation_id, o.causation_id, o.actor,
       CASE WHEN o.payload_size <= $10::bigint THEN o.payload END,
       CASE WHEN o.payload_size <= $10::bigint THEN o.payload_binary END
FROM unnest($3::bigint[], $4::text[], $5::boolean[], $6::integer[], $7::text[], $8::text[],
            $9::text[])
    AS failed (seq, state, holds, attempts, error_code, error, fingerprint)
CROSS JOIN LATERAL (
    SELECT l.*, CASE WHEN pg_column_compression(l.payload) IS NOT NULL
                     THEN octet_length(l.payload::text)
                     WHEN l.payload IS NOT NULL THEN pg_column_size(l.payload)
                     ELSE octet_length(l.payload_binary) END AS payload_size
    FROM "postrider".outbox AS l
    WHERE l.seq >= failed.seq AND l.seq <= failed.seq
    ORDER BY l.seq
    LIMIT 1) AS o
WHERE EXISTS (SELECT FROM "postrider".position AS p
              WHERE p.relay = $1::text AND p.term = $2::bigint)
ORDER BY failed.seq
ON CONFLICT (relay, seq) DO NOTHING
RETURNING seq
