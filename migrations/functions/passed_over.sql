-- passed_over(): how many events wait for a relay that it would not publish with this filter: its
-- present filter takes them, and the new one does not. Counted up to 10,000 of the rows that wait;
-- those of transactions that were open at its position are not looked at.
--
-- A relay that never ran has no filter to compare with, and nothing waits for it yet: 0.

CREATE OR REPLACE FUNCTION "postrider".passed_over(name text, new_filter jsonb)
RETURNS bigint
LANGUAGE sql STABLE SET search_path = pg_catalog, pg_temp
AS $body$
    SELECT count(*) FROM (
        SELECT p.filter, o.event_type, o.kind, o.aggregate_type, o.aggregate_id, o.seq
        FROM "postrider".position AS p
        CROSS JOIN LATERAL (
            SELECT r.event_type, r.kind, r.aggregate_type, r.aggregate_id, r.seq
            FROM "postrider".outbox AS r
            WHERE r.seq > greatest(p.floor, p.bookmark) AND r.tx >= pg_snapshot_xmax(p.snapshot)
            ORDER BY r.seq LIMIT 10000) AS o
        WHERE p.relay = $1 AND p.filter IS DISTINCT FROM $2) AS waits
    WHERE "postrider".takes(waits.filter, waits.event_type, waits.kind, waits.aggregate_type,
                            waits.aggregate_id, waits.seq)
      AND NOT "postrider".takes($2, waits.event_type, waits.kind, waits.aggregate_type,
                                waits.aggregate_id, waits.seq)
$body$;

COMMENT ON FUNCTION "postrider".passed_over(text, jsonb)
    IS 'How many events wait for a relay that it would not publish with this filter.';
REVOKE ALL ON FUNCTION "postrider".passed_over(text, jsonb) FROM PUBLIC;
GRANT EXECUTE ON FUNCTION "postrider".passed_over(text, jsonb)
    TO postrider_relay, postrider_operator;
