-- Counts the losses of a relay that no operator has acknowledged. A loss is an incident after which
-- the stream lacks published events that the outbox no longer has.
--
-- $1 text relay
-- Columns: losses int8, events int8 (upper bound of the lost events), noticed_at text null (of the
--   first loss, as ISO 8601 in UTC)
-- Rows: exactly one. Index: loss_standing. Locks: ACCESS SHARE.
SELECT count(*) AS losses, coalesce(sum(l.events_at_most), 0)::bigint AS events,
       to_char(min(l.noticed_at) AT TIME ZONE 'UTC', 'YYYY-MM-DD"T"HH24:MI:SS"Z"') AS noticed_at
FROM "postrider".loss AS l
WHERE l.relay = $1::text AND l.acknowledged_at IS NULL
