-- Ends the terms of this route's relays with another number of shards, where their lease is not in
-- force. Otherwise a leader of such a relay that was frozen could renew its lease when it wakes up:
-- no other instance has acquired its position, so its term would still be valid.
--
-- The condition on the lease is that of functions/is_led.sql, written out. A call of the function
-- would read the row as of the statement's snapshot. The written condition is checked again on a
-- row that was renewed meanwhile.
--
-- $1 text route, $2 int4 number of shards of this relay's route (1: not sharded)
-- Columns: relay text, durable text (sets synchronous_commit to local, because the new term has to
--   survive a crash of the server)
-- Rows: one for each term ended. Index: none, there are few positions. Locks: these rows.
UPDATE "postrider".position AS p
SET term = p.term + 1, lease_until = NULL
WHERE "postrider".is_rival(p.relay, $1::text, $2::integer)
  AND p.lease_until IS NOT NULL
  AND NOT (p.lease_until > clock_timestamp()
           AND (p.lease_until <= clock_timestamp() + interval '5 minutes'
                OR p.reported_at > clock_timestamp() - interval '5 minutes'))
RETURNING p.relay, set_config('synchronous_commit', 'local', true) AS durable
