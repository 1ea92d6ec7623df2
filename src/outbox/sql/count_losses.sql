-- Sum of the losses of a relay that no operator has acknowledged.
--
-- $1 text relay
-- Columns: losses int8, events int8 (at most), noticed_at text null (the first, ISO 8601, UTC)
-- Rows: exactly one. Index: loss_standing. Locks: ACCESS SHARE.
SELECT count(*) AS losses, coalesce(sum(l.events_at_most), 0)::bigint AS events,
       to_char(min(l.noticed_at) AT TIME ZONE 'UTC', 'YYYY-MM-DD"T"HH24:MI:SS"Z"') AS noticed_at
FROM "postrider".loss AS l
WHERE l.relay = $1::text AND l.acknowledged_at IS NULL
