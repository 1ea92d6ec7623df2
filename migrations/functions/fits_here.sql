-- fits_here(): whether a position that was made in a cluster with another identifier is true in
-- this one: so it is after pg_upgrade, where transaction numbers go on. Three conditions prove it:
--
-- - No transaction that is open, or comes later, has a number that the position takes for settled.
-- - No row has a number that this cluster has not come to.
-- - Rows that existed at the last settlement were written here by the transactions that they name:
--   a dump that was restored has rows of other transactions (xmin is not tx). A row that was
--   inserted under a savepoint has another xmin too, so that one of them is enough. An outbox
--   without any row has nothing to confuse.

CREATE OR REPLACE FUNCTION "postrider".fits_here(wanted text) RETURNS boolean
LANGUAGE sql STABLE SET search_path = pg_catalog, pg_temp AS $body$
    SELECT coalesce(bool_and(
        p.system_id <> 0
        AND greatest(pg_snapshot_xmax(p.snapshot), pg_snapshot_xmax(p.target))
            <= pg_snapshot_xmin(pg_current_snapshot())
        AND NOT EXISTS (SELECT FROM "postrider".outbox AS o
                        WHERE o.tx >= pg_snapshot_xmax(pg_current_snapshot()))
        AND (NOT EXISTS (SELECT FROM "postrider".outbox)
             OR EXISTS (SELECT FROM (
                    SELECT r.tx::text::bigint & 4294967295 AS named, r.xmin::text::bigint AS own
                    FROM "postrider".outbox AS r
                    WHERE r.seq <= p.drawn ORDER BY r.seq DESC LIMIT 100) AS o
                WHERE o.named = o.own))), false)
    FROM "postrider".position AS p
    WHERE p.relay = wanted
$body$;

COMMENT ON FUNCTION "postrider".fits_here(text)
    IS 'Whether a position of another cluster is true in this one.';
REVOKE ALL ON FUNCTION "postrider".fits_here(text) FROM PUBLIC;
GRANT EXECUTE ON FUNCTION "postrider".fits_here(text) TO postrider_relay, postrider_operator;
