-- The payloads that a page left out, for those of its events for which there is memory. The caller
-- adds up the sizes from the page, so the required memory is bounded before anything is read.
--
-- $1 bigint[] seq
-- Columns: seq int8, payload json null, payload_binary bytea null
-- Rows: one a seq, in no order. Index: primary key of each leaf, one probe a leaf and event.
-- Locks: ACCESS SHARE.
SELECT o.seq, o.payload, o.payload_binary
FROM unnest($1::bigint[]) AS wanted (seq)
CROSS JOIN LATERAL (
    SELECT l.seq, l.payload, l.payload_binary
    FROM "postrider".outbox AS l
    WHERE l.seq >= wanted.seq AND l.seq <= wanted.seq
    ORDER BY l.seq
    LIMIT 1) AS o
