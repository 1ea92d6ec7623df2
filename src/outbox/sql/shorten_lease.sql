-- Shortens a lease that ends later than any instance can have written, because of a manual change
-- or a server clock that was ahead. The leader trusts its lease for less than $2 seconds, and
-- renews it before.
--
-- $1 text relay, $2 float8 seconds that a lease has at most
-- Columns: term int8
-- Rows: 1 when it was shortened, else 0. Index: primary key. Locks: that row.
UPDATE "postrider".position AS p
SET lease_until = clock_timestamp() + $2::float8 * interval '1 second'
WHERE p.relay = $1::text AND p.lease_until > clock_timestamp() + $2::float8 * interval '1 second'
RETURNING p.term
