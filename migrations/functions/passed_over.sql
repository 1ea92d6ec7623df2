-- passed_over(): the number of events that wait for a relay and that it would not publish with this
-- filter: its present filter takes them, and the new one does not. Counted among the first 10,000
-- rows that wait; rows of transactions that were open at its position do not count. Null when the
-- filter is the present one, and for a relay that never ran.

CREATE OR REPLACE FUNCTION "postrider".passed_over(name text, new_filter jsonb)
RETURNS bigint
LANGUAGE sql STABLE SET search_path = pg_catalog, pg_temp
AS $body$
    SELECT (SELECT count(*) FROM (
                SELECT r.event_type, r.kind, r.aggregate_type, r.aggregate_id, r.seq
                FROM "postrider".outbox AS r
                WHERE r.seq > greatest(p.floor, p.bookmark)
                  AND r.tx >= pg_snapshot_xmax(p.snapshot)
                ORDER BY r.seq LIMIT 10000) AS w
            WHERE "postrider".takes(p.filter, w.event_type, w.kind, w.aggregate_type,
                                    w.aggregate_id, w.seq)
              AND NOT "postrider".takes($2, w.event_type, w.kind, w.aggregate_type,
                                        w.aggregate_id, w.seq))
    FROM "postrider".position AS p
    WHERE p.relay = $1 AND p.filter IS DISTINCT FROM $2
$body$;

COMMENT ON FUNCTION "postrider".passed_over(text, jsonb)
    IS 'The number of waiting events that a relay would not publish with this filter.';
REVOKE ALL ON FUNCTION "postrider".passed_over(text, jsonb) FROM PUBLIC;
GRANT EXECUTE ON FUNCTION "postrider".passed_over(text, jsonb)
    TO postrider_relay, postrider_operator;
