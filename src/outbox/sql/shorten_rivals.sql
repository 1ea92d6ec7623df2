-- As shorten_lease.sql, for the leases of a route's relays with another number of shards.
--
-- $1 text route, $2 int4 shards that this one has, $3 float8 seconds that a lease has at most
-- Columns: relay text
-- Rows: one for each that was shortened. Index: none, there are few positions. Locks: these rows.
UPDATE "postrider".position AS p
SET lease_until = clock_timestamp() + $3::float8 * interval '1 second'
WHERE "postrider".is_rival(p.relay, $1::text, $2::integer)
  AND p.lease_until > clock_timestamp() + $3::float8 * interval '1 second'
RETURNING p.relay
