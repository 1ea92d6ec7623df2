-- The first unresolved letters of one letter's key, in order. For a letter without a key, only the
-- letter itself. A dead letter that does not block its key is left out.
--
-- $1 bigint   id of a letter
-- $2 bigint   letters at most
-- $3 bigint   bytes of payload at most; the letter that crosses the bound still comes
-- $4 float8   the longest wait of the retry policy, in seconds; a mark further away counts as due
-- Columns: those of columns/event.sql (payload_size is set for a payload that stayed in the
--   outbox), then id int8, state text, attempts int4, holds bool (the letter blocks its key),
--   is_due bool (the letter has no mark, or its mark is due)
-- Rows: 0 to $2. Index: primary key, then letter_waiting_key. Locks: ACCESS SHARE.
WITH wanted AS MATERIALIZED (
    SELECT l.id, l.relay, l.aggregate_type, l.aggregate_id,
           coalesce(l.aggregate_type, '') <> '' AND coalesce(l.aggregate_id, '') <> '' AS has_key
    FROM "postrider".letter AS l WHERE l.id = $1::bigint
), run AS (
    SELECT w.*, sum(w.payload_size) OVER (ORDER BY w.seq) - w.payload_size AS bytes_before
    FROM ((SELECT k.* FROM wanted
           CROSS JOIN LATERAL (
               SELECT l.* FROM "postrider".letter AS l
               WHERE wanted.has_key AND l.relay = wanted.relay
                 AND hashtextextended(l.aggregate_id, 0) = hashtextextended(wanted.aggregate_id, 0)
                 AND l.aggregate_id = wanted.aggregate_id
                 AND l.aggregate_type = wanted.aggregate_type
                 AND l.resolved_at IS NULL AND (l.holds OR l.state <> 'dead')
               ORDER BY l.seq LIMIT $2::bigint) AS k)
          UNION ALL
          (SELECT l.* FROM wanted JOIN "postrider".letter AS l ON l.id = wanted.id
           WHERE NOT wanted.has_key AND l.resolved_at IS NULL AND l.state <> 'dead')) AS w
)
SELECT o.seq, o.event_id, o.occurred_at, o.event_type, NULLIF(o.event_version, 1) AS event_version,
       NULLIF(o.kind, 'domain') AS kind,
       o.aggregate_type, o.aggregate_id, o.aggregate_version, o.source, o.subject,
       NULLIF(o.content_type, 'application/json') AS content_type,
       CASE WHEN pg_column_size(o.headers) <= 5 THEN NULL
            WHEN pg_column_size(o.headers) > 65536
                 OR pg_column_compression(o.headers) IS NOT NULL
                    AND octet_length(o.headers::text) > 131072 THEN '"too large"'
            ELSE o.headers::text END AS headers,
       o.correlation_id, o.causation_id, o.actor,
       CASE WHEN o.payload IS NOT NULL AND o.payload_binary IS NOT NULL THEN -1
            WHEN o.payload_omitted THEN least(o.payload_size, 2147483647)::integer
            END AS payload_size,
       o.payload, o.payload_binary,
       o.id, o.state, o.attempts, o.holds,
       o.next_attempt_at IS NULL OR o.next_attempt_at <= now()
           OR o.next_attempt_at > now() + $4::float8 * interval '1 second' AS is_due
FROM run AS o
WHERE o.bytes_before < $3::bigint
ORDER BY o.seq
