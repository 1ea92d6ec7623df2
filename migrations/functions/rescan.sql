-- rescan(): accepts a database that was restored into another cluster, where the transaction
-- numbers of the rows mean nothing. Settled rows get the number 3, the others 4; both are older
-- than any transaction here. In the new position 4 counts as late, so those rows are published,
-- under the same ids. (The number of this transaction would not do: whether its own snapshot shows
-- it depends on what others do.)
--
-- Settled rows have a seq of at most `drawn`; rows that were inserted after the restore have higher
-- ones. In a database that came without its sequences (as logical replication copies tables) a seq
-- says nothing, because new rows may have drawn it again. So everything up to the sequence's
-- present value is published there, and the whole stream is searched for what it has of it.
--
-- Every row that retention has left is rewritten. Returns the number of pending rows, or null when
-- the term is not this relay's any more.

CREATE OR REPLACE FUNCTION "postrider".rescan(wanted text, wanted_term bigint) RETURNS bigint
LANGUAGE plpgsql VOLATILE SECURITY DEFINER
SET search_path = pg_catalog, pg_temp SET row_security = off AS $body$
DECLARE
    cluster_id CONSTANT bigint := (SELECT system_identifier FROM pg_control_system());
    drawn_here CONSTANT bigint := "postrider".sequence_value('"postrider".outbox_seq_seq');
    came_along boolean;
    pending bigint;
BEGIN
    -- All relays at once: their positions speak of the same rows.
    PERFORM FROM "postrider".position AS p ORDER BY p.relay FOR UPDATE;
    IF NOT EXISTS (SELECT FROM "postrider".position AS p
                   WHERE p.relay = wanted AND p.term = wanted_term) THEN
        RETURN NULL;
    END IF;
    SELECT coalesce(bool_and(p.drawn <= drawn_here), true) INTO came_along
    FROM "postrider".position AS p WHERE p.system_id <> cluster_id;
    DELETE FROM "postrider".contract AS k USING "postrider".position AS p
    WHERE p.relay = k.relay AND p.system_id <> cluster_id;
    -- A single statement, so that the rows and the new position are of the same snapshot.
    WITH foreign_position AS MATERIALIZED (
        SELECT * FROM "postrider".position AS p WHERE p.system_id <> cluster_id
    ), moved AS (
        UPDATE "postrider".outbox AS o
        SET tx = CASE WHEN (came_along OR o.seq > drawn_here) AND (SELECT bool_and(
                            o.seq <= p.drawn
                            AND (pg_visible_in_snapshot(o.tx, p.snapshot)
                                 OR o.seq <= p.bookmark
                                    AND pg_visible_in_snapshot(o.tx, p.target)))
                            FROM foreign_position AS p)
                      THEN '3'::xid8 ELSE '4'::xid8 END
        WHERE EXISTS (SELECT FROM foreign_position)
        RETURNING o.tx
    ), present AS MATERIALIZED (
        SELECT format('4:%s:4%s', pg_snapshot_xmax(s.snapshot),
                      (SELECT string_agg(',' || x.tx::text, '' ORDER BY x.tx)
                       FROM pg_snapshot_xip(s.snapshot) AS x (tx)))::pg_snapshot AS snapshot
        FROM pg_current_snapshot() AS s (snapshot)
    ), reset AS (
        UPDATE "postrider".position AS p
        SET snapshot = present.snapshot, floor = 0, target = present.snapshot,
            target_floor = 0, bookmark = 0, system_id = cluster_id, updated_at = clock_timestamp(),
            stream_floor = CASE WHEN came_along THEN p.stream_floor ELSE 0 END
        FROM present WHERE p.system_id <> cluster_id
    )
    SELECT count(*) INTO pending FROM moved WHERE moved.tx <> '3'::xid8;
    RETURN pending;
END
$body$;

COMMENT ON FUNCTION "postrider".rescan(text, bigint)
    IS 'Accepts a database that was restored into another cluster.';
REVOKE ALL ON FUNCTION "postrider".rescan(text, bigint) FROM PUBLIC;
GRANT EXECUTE ON FUNCTION "postrider".rescan(text, bigint) TO postrider_relay;
