-- Columns of an event, of a row `o` of the outbox. $n stands for the parameter with the maximum
-- bytes of a payload that is returned with its row.
--
-- The memory of a page is bounded: of a payload above $n bytes only the size is returned, and
-- read_payloads.sql reads the payload when there is memory for it. Sizes come from the header of
-- the value, so the value itself is not read. A value that another table had compressed is the
-- exception: it is unpacked and measured. The other columns fit into a block, because the table
-- stores them PLAIN. Headers beyond 64 KiB are returned as a JSON string, which is not an object
-- and so is refused later. A running sum of the sizes here would cost as much as reading the rows.
-- Each value that is sent costs, so the usual values of event_version, kind, content_type and
-- headers are returned as null.
-- seq int8, event_id uuid, occurred_at timestamptz, event_type text, event_version int4 null (null
-- = 1), kind text null (null = domain), aggregate_type text null, aggregate_id text null,
-- aggregate_version int8 null, source text null, subject text null, content_type text null (null =
-- application/json), headers text null (null = none), correlation_id text null, causation_id text
-- null, actor text null, payload_size int4 null (of a payload that does not come along, at most 4
-- bytes above its length; -1: two payloads; null: it comes along, or there is none), payload json
-- null, payload_binary bytea null
o.seq, o.event_id, o.occurred_at, o.event_type, NULLIF(o.event_version, 1) AS event_version,
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
                THEN CASE WHEN octet_length(o.payload_binary) > $n
                          THEN octet_length(o.payload_binary) END
            WHEN o.payload_binary IS NOT NULL THEN -1
            WHEN pg_column_compression(o.payload) IS NOT NULL THEN octet_length(o.payload::text)
            WHEN pg_column_size(o.payload) > $n THEN pg_column_size(o.payload)
            END AS payload_size,
       CASE WHEN pg_column_size(o.payload) <= $n
                 AND pg_column_compression(o.payload) IS NULL THEN o.payload END AS payload,
       CASE WHEN octet_length(o.payload_binary) <= $n
            THEN o.payload_binary END AS payload_binary
