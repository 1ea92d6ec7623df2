-- The readable columns of a row that cannot be read as a whole.
--
-- $1 bigint seq
-- Columns: those of columns/event.sql; headers and payloads are null
-- Rows: exactly one. Index: primary key of each leaf. Locks: ACCESS SHARE.
SELECT s.seq, s.event_id, s.occurred_at, s.event_type, s.event_version, s.kind,
       s.aggregate_type, s.aggregate_id, s.aggregate_version, s.source, s.subject, s.content_type,
       NULL::text AS headers, s.correlation_id, s.causation_id, s.actor,
       NULL::integer AS payload_size, NULL::json AS payload, NULL::bytea AS payload_binary
FROM "postrider".salvage($1::bigint) AS s
