-- Takes a position over into the cluster that pg_upgrade has made of the one it is of. Such a cluster has
-- another identifier, and its transaction numbers go on. In a database that was restored from a dump they
-- begin anew: there a row's own transaction (xmin) is that of the restore, and not the one it names (tx).
--
-- Asked are rows that existed at the last settlement: later ones may be of the new cluster. A row that was
-- inserted under a savepoint has another xmin too, so that one of them is enough.
--
-- $1 text relay, $2 bigint term
-- Columns: taken bool (false: nothing was done, this is a restored database, or the term is lost)
-- Rows: exactly one. Index: primary key of each leaf, that on tx. Locks: the position's row, its
-- checkpoints.
WITH here AS MATERIALIZED (
    SELECT s.system_identifier AS id, pg_snapshot_xmax(pg_current_snapshot()) AS next
    FROM pg_control_system() AS s
), newest AS MATERIALIZED (
    SELECT o.tx::text::bigint & 4294967295 AS named, o.own
    FROM "postrider".position AS p
    CROSS JOIN LATERAL (
        SELECT r.tx, r.xmin::text::bigint AS own FROM "postrider".outbox AS r
        WHERE r.seq <= p.drawn ORDER BY r.seq DESC LIMIT 100) AS o
    WHERE p.relay = $1::text
), taken AS (
    UPDATE "postrider".position AS p SET system_id = here.id
    FROM here
    WHERE p.relay = $1::text AND p.term = $2::bigint AND p.system_id <> 0
      AND pg_snapshot_xmax(p.snapshot) <= here.next AND pg_snapshot_xmax(p.target) <= here.next
      AND (NOT EXISTS (SELECT FROM "postrider".outbox)
           OR EXISTS (SELECT FROM newest WHERE newest.named = newest.own))
      AND NOT EXISTS (SELECT FROM "postrider".outbox AS o WHERE o.tx >= here.next)
    RETURNING p.relay, p.system_id
), checkpoints AS (
    UPDATE "postrider".checkpoint AS c SET system_id = taken.system_id
    FROM taken WHERE c.relay = taken.relay
)
SELECT EXISTS (SELECT FROM taken) AS taken
