-- Whether the route has positions of another number of shards. The relays of these positions may
-- have published events that this relay has not settled.
--
-- $1 text route, $2 int4 number of shards of this relay's route (1: not sharded)
-- Columns: has_rivals bool
-- Rows: exactly one. Index: none, there are few positions. Locks: ACCESS SHARE.
SELECT EXISTS (
    SELECT FROM "postrider".position AS p
    WHERE "postrider".is_rival(p.relay, $1::text, $2::integer)) AS has_rivals
