-- The payload of one letter, or its beginning. A payload that stayed in the outbox is read there.
--
-- $1 bigint id, $2 integer characters of json and bytes of binary at most
-- Columns: json text null, json_bytes int8 null, binary bytea null, binary_bytes int8 null (the
--   sizes are those of the whole payload)
-- Rows: 0 or 1; also 0 when the payload stayed in the outbox and its row is gone. Index: primary
--   key of letter, and of one leaf of the outbox. Locks: ACCESS SHARE.
SELECT substring(p.payload::text FROM 1 FOR $2::integer) AS json,
       octet_length(p.payload::text)::bigint AS json_bytes,
       substring(p.payload_binary FROM 1 FOR $2::integer) AS binary,
       octet_length(p.payload_binary)::bigint AS binary_bytes
FROM "postrider".letter AS l
CROSS JOIN LATERAL (
    SELECT l.payload, l.payload_binary WHERE NOT l.payload_omitted
    UNION ALL
    SELECT o.payload, o.payload_binary FROM "postrider".outbox AS o
    WHERE l.payload_omitted AND o.seq = l.seq AND o.slot = l.slot) AS p
WHERE l.id = $1::bigint
