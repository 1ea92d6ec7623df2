-- Whether the route has positions of another number of shards. Those may have published what this
-- relay has not settled.
--
-- $1 text route, $2 int4 shards that this one has (1: it has none)
-- Columns: has_rivals bool
-- Rows: exactly one. Index: none, there are few positions. Locks: ACCESS SHARE.
SELECT EXISTS (
    SELECT FROM "postrider".position AS p
    WHERE "postrider".is_rival(p.relay, $1::text, $2::integer)) AS has_rivals
