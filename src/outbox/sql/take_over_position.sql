-- Takes over a position into a cluster that pg_upgrade has made of the position's own. Such a
-- cluster has another identifier, and its transaction numbers continue. fits_here() proves that
-- (functions/fits_here.sql).
--
-- $1 text relay, $2 bigint term
-- Columns: taken bool (false: nothing was done, this is a restored database, or the term is lost)
-- Rows: exactly one. Index: primary key of each leaf, that on tx. Locks: the position's row, its
-- checkpoints.
WITH here AS MATERIALIZED (
    SELECT s.system_identifier AS id FROM pg_control_system() AS s
    WHERE "postrider".fits_here($1::text)
), taken AS (
    UPDATE "postrider".position AS p SET system_id = here.id
    FROM here
    WHERE p.relay = $1::text AND p.term = $2::bigint
    RETURNING p.relay, p.system_id
), checkpoints AS (
    UPDATE "postrider".checkpoint AS c SET system_id = taken.system_id
    FROM taken WHERE c.relay = taken.relay
)
SELECT EXISTS (SELECT FROM taken) AS taken
