-- Where the reader may go next, and the first page on the way there: target.sql and page.sql in one
-- round trip, for a P at which no transaction was open, so that none can be late.
--
-- C is this statement's own snapshot, so that what the statement sees is what is visible in C; but for rows
-- from another cluster, with numbers that this one has not come to.
--
-- $1 text    P, the settled snapshot, without open transactions
-- $2 bigint  bookmark: settled inside P..C
-- $3 bigint  floor of P
-- $4 bigint  rows at most
-- $5 integer bytes of one payload at most that comes along
-- Columns: those of page.sql, of which the first row has none but
--   event_type text (C, pg_snapshot as text)
-- Rows: 1 to $4 + 1; the first has no seq. Index: primary key (seq, slot) of each leaf, merged.
-- Locks: ACCESS SHARE.
SELECT NULL::bigint AS seq, NULL::uuid AS event_id, NULL::timestamptz AS occurred_at,
       pg_current_snapshot()::text AS event_type, NULL::integer AS event_version,
       NULL::text AS kind, NULL::text AS aggregate_type, NULL::text AS aggregate_id,
       NULL::bigint AS aggregate_version, NULL::text AS source, NULL::text AS subject,
       NULL::text AS content_type, NULL::text AS headers, NULL::text AS correlation_id,
       NULL::text AS causation_id, NULL::text AS actor, NULL::integer AS payload_size,
       NULL::json AS payload, NULL::bytea AS payload_binary
UNION ALL
(SELECT o.seq, o.event_id, o.occurred_at, o.event_type, NULLIF(o.event_version, 1) AS event_version,
       NULLIF(o.kind, 'domain') AS kind,
       o.aggregate_type, o.aggregate_id, o.aggregate_version, o.source, o.subject,
       NULLIF(o.content_type, 'application/json') AS content_type,
       CASE WHEN pg_column_size(o.headers) <= 5 THEN NULL
            WHEN pg_column_size(o.headers) > 65536
                 OR pg_column_compression(o.headers) IS NOT NULL
                    AND octet_length(o.headers::text) > 131072 THEN '"too large"'
            ELSE o.headers::text END AS headers,
       o.correlation_id, o.causation_id, o.actor,
       CASE WHEN o.payload IS NULL
                THEN CASE WHEN octet_length(o.payload_binary) > $5::integer
                          THEN octet_length(o.payload_binary) END
            WHEN o.payload_binary IS NOT NULL THEN -1
            WHEN pg_column_compression(o.payload) IS NOT NULL THEN octet_length(o.payload::text)
            WHEN pg_column_size(o.payload) > $5::integer THEN pg_column_size(o.payload)
            END AS payload_size,
       CASE WHEN pg_column_size(o.payload) <= $5::integer
                 AND pg_column_compression(o.payload) IS NULL THEN o.payload END AS payload,
       CASE WHEN octet_length(o.payload_binary) <= $5::integer
            THEN o.payload_binary END AS payload_binary
FROM (
    SELECT r.*
    FROM "postrider".outbox AS r
    WHERE r.seq > greatest($2::bigint, $3::bigint)
      AND r.tx >= (SELECT pg_snapshot_xmax($1::text::pg_snapshot))
      AND r.tx < (SELECT pg_snapshot_xmax(pg_current_snapshot()))
    ORDER BY r.seq
    LIMIT $4::bigint
) AS o
ORDER BY o.seq)
