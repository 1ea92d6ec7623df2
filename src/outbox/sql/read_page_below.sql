-- The next page of events below a place: asked for when the block of the row at that place cannot be
-- read, so that the rows before it are not passed over (read_page_late.sql has the conditions).
--
-- $1 to $6 as read_page.sql, $7 text null late transactions, $8 bigint only rows with a lower seq
-- Columns: those of read_page.sql
-- Rows: 0 to $5. Index: as read_page_late.sql. Locks: ACCESS SHARE.
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
       CASE WHEN o.payload IS NULL
                THEN CASE WHEN octet_length(o.payload_binary) > $6::integer
                          THEN octet_length(o.payload_binary) END
            WHEN o.payload_binary IS NOT NULL THEN -1
            WHEN pg_column_compression(o.payload) IS NOT NULL THEN octet_length(o.payload::text)
            WHEN pg_column_size(o.payload) > $6::integer THEN pg_column_size(o.payload)
            END AS payload_size,
       CASE WHEN pg_column_size(o.payload) <= $6::integer
                 AND pg_column_compression(o.payload) IS NULL THEN o.payload END AS payload,
       CASE WHEN octet_length(o.payload_binary) <= $6::integer
            THEN o.payload_binary END AS payload_binary
FROM (
    (SELECT late_row.*
     FROM unnest((SELECT coalesce($7::text, '{}')::xid8[])) AS late (tx)
     CROSS JOIN LATERAL (
         SELECT l.* FROM "postrider".outbox AS l
         WHERE l.tx >= late.tx AND l.tx <= late.tx AND l.seq > $3::bigint AND l.seq < $8::bigint
         ORDER BY l.tx, l.seq
         LIMIT $5::bigint) AS late_row
     WHERE pg_visible_in_snapshot(late.tx, (SELECT $2::text::pg_snapshot)))
    UNION ALL
    (SELECT n.*
     FROM "postrider".outbox AS n
     WHERE n.seq > greatest($3::bigint, $4::bigint) AND n.seq < $8::bigint
       AND n.tx >= (SELECT pg_snapshot_xmax($1::text::pg_snapshot))
       AND (n.tx < (SELECT pg_snapshot_xmin($2::text::pg_snapshot))
            OR pg_visible_in_snapshot(n.tx, (SELECT $2::text::pg_snapshot)))
     ORDER BY n.seq
     LIMIT $5::bigint)
) AS o
ORDER BY o.seq
LIMIT $5::bigint
