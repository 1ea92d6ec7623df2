-- The next page of events between two snapshots, in seq order, when no transaction is late.
--
-- New are the rows visible in C and not in P. Without late transactions (target.sql) these have
-- tx >= xmax(P), and all rows of such transactions have a seq above the floor of P:
--
--   floor(P) is the `fence` of the last settle.sql or acquire.sql that committed before P was
--   taken: the last seq drawn by anybody, read before the writing transaction got its own number
--   X. X had ended when P was taken, so xmax(P) > X; a transaction >= xmax(P) got its number after
--   X, hence after the fence was read, and draws seq after its number (column order of outbox).
--   The highest seq visible in P will NOT do: xmax(P) is the last ended number + 1, and younger
--   transactions that already run may hold smaller seqs.
--
-- The row whose size reaches $7 bytes in sum is the last. No payload that is not
-- returned is read: sizes come from the header of the value (values that another table had
-- compressed are the exception: these are measured).
--
-- $1 text    P, the settled snapshot
-- $2 text    C, the target snapshot
-- $3 bigint  bookmark: settled inside P..C
-- $4 bigint  floor of P
-- $5 bigint  rows at most
-- $6 bigint  bytes of one event at most: beyond it both payloads are NULL, payload_size tells
-- $7 bigint  bytes of the page at most
-- Columns: seq int8, event_id uuid, occurred_at timestamptz, event_type text, event_version int4,
--   kind text, aggregate_type text null, aggregate_id text null, aggregate_version int8 null,
--   source text null, subject text null, content_type text, headers text null (null = none),
--   correlation_id text null, causation_id text null, actor text null,
--   payload_size int8 null (null = no payload; within 4 bytes of the length),
--   payload json null, payload_binary bytea null, bytes int8 (the sum of sizes up to this row)
-- Rows: 0 to $5. Index: primary key (seq, slot) of each leaf, merged. Locks: ACCESS SHARE.
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
        FROM "postrider".outbox AS o
        WHERE o.seq > greatest($3::bigint, $4::bigint)
          AND o.tx >= (SELECT pg_snapshot_xmax($1::text::pg_snapshot))
          AND pg_visible_in_snapshot(o.tx, (SELECT $2::text::pg_snapshot))
        ORDER BY o.seq
        LIMIT $5::bigint
    ) AS sized
) AS page
WHERE page.bytes - page.own_bytes < $7::bigint
ORDER BY page.seq
