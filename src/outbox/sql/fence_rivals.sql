-- Ends the terms of leaders with another number of shards whose lease is not in force. A frozen one
-- that wakes up later could renew its lease otherwise, because no instance has acquired its
-- position.
--
-- The rule is that of functions/is_led.sql, written out: the function would read the row as of the
-- statement's snapshot, and this condition is checked again on a row that was renewed meanwhile.
--
-- $1 text route, $2 int4 shards that this one has (1: it has none)
-- Columns: relay text, durable text (as renew_lease.sql)
-- Rows: one for each. Index: none, there are few positions. Locks: these rows.
UPDATE "postrider".position AS p
SET term = p.term + 1, lease_until = NULL
WHERE "postrider".is_rival(p.relay, $1::text, $2::integer)
  AND p.lease_until IS NOT NULL
  AND NOT (p.lease_until > clock_timestamp()
           AND (p.lease_until <= clock_timestamp() + interval '5 minutes'
                OR p.reported_at > clock_timestamp() - interval '5 minutes'))
RETURNING p.relay, set_config('synchronous_commit', 'local', true) AS durable
