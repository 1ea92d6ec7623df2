-- turn_settled(): whether every relay has settled every visible row of a turn. It reads only above
-- the positions. Row security is off: it would hide unsettled rows from retention, which would then
-- remove them.

CREATE OR REPLACE FUNCTION "postrider".turn_settled(wanted smallint) RETURNS boolean
LANGUAGE sql VOLATILE
SET enable_seqscan = off SET enable_bitmapscan = off SET enable_sort = off SET jit = off
SET search_path = pg_catalog, pg_temp SET row_security = off
RETURN EXISTS (SELECT FROM "postrider".position) AND NOT EXISTS (
    SELECT FROM "postrider".position AS p
    WHERE (SELECT true FROM "postrider".outbox AS o
           WHERE o.slot IN (wanted, wanted + 4) AND o.seq > p.floor
             AND o.tx >= pg_snapshot_xmax(p.snapshot)
             AND NOT (o.seq <= p.bookmark AND pg_visible_in_snapshot(o.tx, p.target))
           ORDER BY o.seq LIMIT 1)
       OR (SELECT true FROM pg_snapshot_xip(p.snapshot) AS x (tx)
           CROSS JOIN LATERAL (
               SELECT FROM "postrider".outbox AS l
               WHERE l.slot IN (wanted, wanted + 4) AND l.tx >= x.tx AND l.tx <= x.tx
                 AND NOT (l.seq <= p.bookmark AND pg_visible_in_snapshot(l.tx, p.target))
               ORDER BY l.tx, l.seq LIMIT 1) AS late
           LIMIT 1));

COMMENT ON FUNCTION "postrider".turn_settled(smallint)
    IS 'Whether every relay has settled every row of a turn.';
REVOKE ALL ON FUNCTION "postrider".turn_settled(smallint) FROM PUBLIC;
