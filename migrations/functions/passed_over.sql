-- passed_over(): the number of events that wait for a relay and that it would not publish with this
-- filter: its present filter takes them, and the new one does not. Counted among the first 1,000
-- rows that wait; `is_all` says whether there are no more. Rows of transactions that were open at
-- its position do not count. No row when the filter is the present one, and for a relay that has
-- settled nothing without a filter: it has just begun.

CREATE OR REPLACE FUNCTION "postrider".passed_over(
    name text, new_filter jsonb, OUT counted bigint, OUT is_all boolean)
RETURNS SETOF record
LANGUAGE sql STABLE SET search_path = pg_catalog, pg_temp
AS $body$
    SELECT waiting.passed_over, waiting.looked_at < 1000
    FROM "postrider".position AS p
    CROSS JOIN LATERAL (
        SELECT count(*) AS looked_at, count(*) FILTER (
            WHERE "postrider".takes(p.filter, w.event_type, w.kind, w.aggregate_type,
                                    w.aggregate_id, w.seq)
              AND NOT "postrider".takes($2, w.event_type, w.kind, w.aggregate_type,
                                        w.aggregate_id, w.seq)) AS passed_over
        FROM (SELECT r.event_type, r.kind, r.aggregate_type, r.aggregate_id, r.seq
              FROM "postrider".outbox AS r
              WHERE r.seq > greatest(p.floor, p.bookmark) AND r.tx >= pg_snapshot_xmax(p.snapshot)
              ORDER BY r.seq LIMIT 1000) AS w) AS waiting
    WHERE p.relay = $1 AND p.filter IS DISTINCT FROM $2
      AND (p.filter IS NOT NULL OR p.bookmark > 0 OR p.snapshot::text <> '3:3:')
$body$;

COMMENT ON FUNCTION "postrider".passed_over(text, jsonb)
    IS 'The number of waiting events that a relay would not publish with this filter.';
REVOKE ALL ON FUNCTION "postrider".passed_over(text, jsonb) FROM PUBLIC;
GRANT EXECUTE ON FUNCTION "postrider".passed_over(text, jsonb)
    TO postrider_relay, postrider_operator;
