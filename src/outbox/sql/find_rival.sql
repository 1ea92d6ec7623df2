-- A relay of the same route that is led with another number of shards
-- (migrations/functions/is_rival.sql).
--
-- $1 text route, $2 int4 number of shards of this relay's route (1: not sharded)
-- Columns: relay text, holder text
-- Rows: 0 or 1. Index: none, there are few positions. Locks: ACCESS SHARE.
SELECT p.relay, p.holder
FROM "postrider".position AS p
WHERE "postrider".is_rival(p.relay, $1::text, $2::integer) AND "postrider".is_led(p.relay)
ORDER BY p.relay
LIMIT 1
