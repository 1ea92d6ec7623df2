-- Takes a checkpoint of the position, from which a broker that lost messages can be healed. Deletes
-- checkpoints older than $2. Ends a healing once the position has passed the rows of all letters.
--
-- $1 text relay, $2 float8 seconds that checkpoints are kept
-- Columns: taken int8 (1 when a checkpoint was taken, because the stream has moved; else 0)
-- Rows: exactly one. Index: primary keys. Locks: the new and old rows; the position's when a
--   healing ends.
WITH here AS MATERIALIZED (
    SELECT p.* FROM "postrider".position AS p
    WHERE p.relay = $1::text AND p.stream_seq > 0
), taken AS (
    INSERT INTO "postrider".checkpoint (relay, stream_created_ns, published, stream_seq,
        stream_floor, snapshot, floor, target, target_floor, bookmark, system_id)
    SELECT here.relay, here.stream_created_ns, here.published, here.stream_seq,
        here.stream_floor, here.snapshot, here.floor, here.target, here.target_floor, here.bookmark, here.system_id
    FROM here
    WHERE here.stream_seq IS DISTINCT FROM (
        SELECT c.stream_seq FROM "postrider".checkpoint AS c WHERE c.relay = here.relay
        ORDER BY c.taken_at DESC LIMIT 1)
    RETURNING 1
), forgotten AS (
    DELETE FROM "postrider".checkpoint AS c USING here
    WHERE c.relay = here.relay AND c.taken_at < now() - $2::float8 * interval '1 second'
), ended AS (
    UPDATE "postrider".position AS p SET healing_since = NULL
    FROM here
    -- A healing that began after `here` was read is another one, and stays.
    WHERE p.relay = here.relay AND p.healing_since = here.healing_since
      AND here.healing_since < now() - interval '1 minute'
      AND NOT EXISTS (
          SELECT FROM "postrider".letter AS l
          WHERE l.relay = here.relay AND NOT pg_visible_in_snapshot(l.tx, here.snapshot)
            AND NOT (l.seq <= here.bookmark AND pg_visible_in_snapshot(l.tx, here.target)))
)
SELECT count(*) AS taken FROM taken
