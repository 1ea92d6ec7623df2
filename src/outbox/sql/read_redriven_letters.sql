-- The current state of letters that were redriven.
--
-- $1 bigint[] ids, $2 timestamptz when they were redriven (by this server's clock)
-- Columns: id int8, state text, resolution text null, resolved_by text null, stream_seq int8 null,
--   is_tried bool (the letter has failed again since), error_code text, error text, next_attempt_at
--   text null (as ISO 8601 in UTC), behind int8 null (id of the first dead letter of its key that
--   it waits behind)
-- Rows: 0 to as many as there are ids. Index: primary key; letter_unresolved_key.
-- Locks: ACCESS SHARE.
SELECT l.id, l.state, l.resolution, l.resolved_by, l.stream_seq,
       l.last_failed_at >= $2::timestamptz AS is_tried, l.error_code, left(l.error, 500) AS error,
       to_char(l.next_attempt_at AT TIME ZONE 'UTC', 'YYYY-MM-DD"T"HH24:MI:SS.US"Z"') AS next_attempt_at,
       (SELECT b.id
        FROM "postrider".letter AS b
        WHERE b.relay = l.relay AND b.resolved_at IS NULL AND b.seq < l.seq AND b.holds
          AND b.state = 'dead'
          AND hashtextextended(b.aggregate_id, 0) = hashtextextended(l.aggregate_id, 0)
          AND b.aggregate_type = l.aggregate_type AND b.aggregate_id = l.aggregate_id
          AND l.state <> 'dead' AND l.resolved_at IS NULL
        ORDER BY b.seq LIMIT 1) AS behind
FROM "postrider".letter AS l
WHERE l.id = ANY ($1::bigint[])
