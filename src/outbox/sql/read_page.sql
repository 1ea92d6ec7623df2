-- The next page of events between two snapshots, in seq order, when no transaction is late.
--
-- New are the rows visible in C and not in P. Without late transactions (find_late_transactions.sql) these have
-- tx >= xmax(P), and all rows of such transactions have a seq above the floor of P:
--
--   floor(P) is the `fence` of the last settle_position.sql or acquire_lease.sql that committed before P was
--   taken: the last seq drawn by anybody, read before the writing transaction got its own number
--   X. X had ended when P was taken, so xmax(P) > X; a transaction >= xmax(P) got its number after
--   X, hence after the fence was read, and draws seq after its number (column order of outbox).
--   The highest seq visible in P will NOT do: xmax(P) is the last ended number + 1, and younger
--   transactions that already run may hold smaller seqs.
--
-- The memory of a page is bounded: a payload above $6 bytes does not come along, only its size,
-- and read_payloads.sql reads it when there is room. Nothing that is not returned is read: sizes come
-- from the header of the value (values that another table had compressed are the exception: these
-- are unpacked and measured). The other columns fit into a block, because outbox stores them PLAIN; headers
-- beyond 64 KiB come as a JSON string, which is no object and so is refused later.
-- A running sum of the sizes here would cost as much again as reading the rows. Each value that is
-- sent costs, so the usual ones of three columns come as null. So does a look into a snapshot, which
-- is unpacked for each row: what is older than all of C's open transactions needs none. The rows are
-- chosen in a query of their own: else each of the eight leaves would get the whole list of columns
-- to prepare, for every page.
--
-- $1 text    P, the settled snapshot
-- $2 text    C, the target snapshot
-- $3 bigint  bookmark: settled inside P..C
-- $4 bigint  floor of P
-- $5 bigint  rows at most
-- $6 integer bytes of one payload at most that comes along
-- Columns: seq int8, event_id uuid, occurred_at timestamptz, event_type text,
--   event_version int4 null (null = 1), kind text null (null = domain), aggregate_type text null, aggregate_id text null, aggregate_version int8 null,
--   source text null, subject text null, content_type text null (null = application/json),
--   headers text null (null = none),
--   correlation_id text null, causation_id text null, actor text null,
--   payload_size int4 null (of a payload that does not come along, at most 4 bytes above its
--   length; -1: two payloads; null: it comes along, or there is none),
--   payload json null, payload_binary bytea null
-- Rows: 0 to $5. Index: primary key (seq, slot) of each leaf, merged. Locks: ACCESS SHARE.
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
    SELECT r.*
    FROM "postrider".outbox AS r
    WHERE r.seq > greatest($3::bigint, $4::bigint)
      AND r.tx >= (SELECT pg_snapshot_xmax($1::text::pg_snapshot))
      AND (r.tx < (SELECT pg_snapshot_xmin($2::text::pg_snapshot))
           OR pg_visible_in_snapshot(r.tx, (SELECT $2::text::pg_snapshot)))
    ORDER BY r.seq
    LIMIT $5::bigint
) AS o
ORDER BY o.seq
