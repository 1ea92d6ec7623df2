-- The next page of events between two snapshots, in seq order, when transactions are late.
--
-- As page.sql, and the rows of the late transactions (open in P, visible in C), which may have any
-- seq above the bookmark. Row sizes, bounds and columns are those of page.sql.
--
-- $1 to $7 as in page.sql
-- $8 text  late transactions, as target.sql gave them
-- Rows: 0 to $5. Index: outbox_tx_seq for each late transaction, primary key for the rest.
-- Locks: ACCESS SHARE.
SELECT page.seq, page.event_id, page.occurred_at, page.event_type, page.event_version, page.kind,
       page.aggregate_type, page.aggregate_id, page.aggregate_version, page.source, page.subject,
       page.content_type, nullif(page.headers, '{}')::text AS headers, page.correlation_id,
       page.causation_id, page.actor, page.payload_size::bigint AS payload_size,
       CASE WHEN page.payload_size <= $6::bigint THEN page.payload END AS payload,
       CASE WHEN page.payload_size <= $6::bigint THEN page.payload_binary END AS payload_binary,
       page.bytes::bigint AS bytes
FROM (
    SELECT sized.*,
           sum(CASE WHEN sized.payload_size <= $6::bigint THEN sized.payload_size ELSE 0 END
               + pg_column_size(sized.headers) + 512)
               OVER (ORDER BY sized.seq ROWS UNBOUNDED PRECEDING) AS bytes,
           CASE WHEN sized.payload_size <= $6::bigint THEN sized.payload_size ELSE 0 END
               + pg_column_size(sized.headers) + 512 AS own_bytes
    FROM (
        SELECT o.*,
               CASE WHEN pg_column_compression(o.payload) IS NOT NULL
                    THEN octet_length(o.payload::text)
                    WHEN o.payload IS NOT NULL THEN pg_column_size(o.payload)
                    ELSE octet_length(o.payload_binary) END AS payload_size
        FROM (
            (SELECT late_row.*
             FROM unnest((SELECT $8::text::xid8[])) AS late (tx)
             CROSS JOIN LATERAL (
                 SELECT l.* FROM "postrider".outbox AS l
                 WHERE l.tx >= late.tx AND l.tx <= late.tx AND l.seq > $3::bigint
                 ORDER BY l.tx, l.seq
                 LIMIT $5::bigint) AS late_row
             WHERE pg_visible_in_snapshot(late.tx, (SELECT $2::text::pg_snapshot)))
            UNION ALL
            (SELECT n.*
             FROM "postrider".outbox AS n
             WHERE n.seq > greatest($3::bigint, $4::bigint)
               AND n.tx >= (SELECT pg_snapshot_xmax($1::text::pg_snapshot))
               AND pg_visible_in_snapshot(n.tx, (SELECT $2::text::pg_snapshot))
             ORDER BY n.seq
             LIMIT $5::bigint)
        ) AS o
        ORDER BY o.seq
        LIMIT $5::bigint
    ) AS sized
) AS page
WHERE page.bytes - page.own_bytes < $7::bigint
ORDER BY page.seq
