-- unrestorable(): the number of published events that a healing cannot publish again, when the
-- stream is the one created at that time and ends at that sequence: of those since the checkpoint
-- that it goes back to, those that the outbox does not have. It reads the rows that the outbox
-- retains.

CREATE OR REPLACE FUNCTION "postrider".unrestorable(relay text, created_ns bigint, last_seq bigint)
RETURNS bigint
LANGUAGE sql STABLE
SET search_path = pg_catalog, pg_temp SET enable_seqscan = on SET enable_hashjoin = on AS $body$
    WITH chosen AS MATERIALIZED (
        SELECT c.snapshot, c.target, c.bookmark, c.published FROM "postrider".checkpoint AS c
        WHERE c.relay = $1 AND c.stream_created_ns = $2 AND c.stream_seq <= $3
          AND c.system_id = (SELECT s.system_identifier FROM pg_control_system() AS s)
        ORDER BY c.taken_at DESC LIMIT 1
    ), retained AS MATERIALIZED (
        SELECT count(*) AS events
        FROM "postrider".outbox AS o
        JOIN "postrider".position AS p ON p.relay = $1
        LEFT JOIN chosen AS c ON true
        WHERE (pg_visible_in_snapshot(o.tx, p.snapshot)
               OR o.seq <= p.bookmark AND pg_visible_in_snapshot(o.tx, p.target))
          AND NOT coalesce(pg_visible_in_snapshot(o.tx, c.snapshot)
                           OR o.seq <= c.bookmark AND pg_visible_in_snapshot(o.tx, c.target), false)
          -- A row that left as a letter was not settled as published; one that became a letter
          -- afterwards, because it was missing, was.
          AND NOT EXISTS (SELECT FROM "postrider".letter AS l
                          WHERE l.relay = $1 AND l.seq = o.seq AND l.fingerprint <> 'missing')
          AND (p.filter IS NULL
               OR "postrider".takes(p.filter, o.event_type, o.kind, o.aggregate_type,
                                    o.aggregate_id, o.seq))
    )
    SELECT greatest(p.published - coalesce((SELECT chosen.published FROM chosen), 0)
                    - retained.events, 0)
    FROM "postrider".position AS p CROSS JOIN retained
    WHERE p.relay = $1
$body$;

COMMENT ON FUNCTION "postrider".unrestorable(text, bigint, bigint)
    IS 'How many published events a healing cannot publish again.';
REVOKE ALL ON FUNCTION "postrider".unrestorable(text, bigint, bigint) FROM PUBLIC;
GRANT EXECUTE ON FUNCTION "postrider".unrestorable(text, bigint, bigint) TO postrider_relay;
