-- Shortens the leases of this route's relays with another number of shards, where they end later
-- than any instance can have written. The reasons are a manual change, or a server clock that was
-- ahead.
--
-- $1 text route, $2 int4 number of shards of this relay's route (1: not sharded), $3 float8 seconds
-- that a lease has at most
-- Columns: relay text
-- Rows: one for each lease shortened. Index: none, there are few positions. Locks: these rows.
UPDATE "postrider".position AS p
SET lease_until = clock_timestamp() + $3::float8 * interval '1 second'
WHERE "postrider".is_rival(p.relay, $1::text, $2::integer)
  AND p.lease_until > clock_timestamp() + $3::float8 * interval '1 second'
RETURNING p.relay
