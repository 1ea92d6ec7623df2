-- forget(): deletes resolved letters and rows of the audit that are old, some of each; the relay
-- calls it from time to time. A letter whose row the outbox still has stays: it says that the row
-- is not to be published again. Returns the number of each.

CREATE OR REPLACE FUNCTION "postrider".forget(
    letter_retention interval, audit_retention interval, most bigint,
    OUT letters bigint, OUT audits bigint)
LANGUAGE plpgsql VOLATILE SECURITY DEFINER
SET enable_seqscan = off SET enable_bitmapscan = off SET jit = off
SET search_path = pg_catalog, pg_temp AS $body$
#variable_conflict use_column
BEGIN
    WITH old AS MATERIALIZED (
        SELECT l.id FROM "postrider".letter AS l
        WHERE l.resolved_at IS NOT NULL AND l.next_attempt_at IS NULL
          AND l.resolved_at < clock_timestamp() - letter_retention
          AND NOT EXISTS (SELECT FROM "postrider".outbox AS o
                          WHERE o.seq = l.seq AND o.slot = l.slot)
        ORDER BY l.resolved_at LIMIT most
        FOR UPDATE SKIP LOCKED
    ), gone AS (
        DELETE FROM "postrider".letter AS l USING old WHERE l.id = old.id RETURNING l.id
    )
    SELECT count(*) INTO letters FROM gone;
    WITH first AS MATERIALIZED (
        SELECT a.id, a.acted_at FROM "postrider".audit AS a ORDER BY a.id LIMIT most
    ), gone AS (
        DELETE FROM "postrider".audit AS a USING first
        WHERE a.id = first.id AND first.acted_at < clock_timestamp() - audit_retention
        RETURNING a.id
    )
    SELECT count(*) INTO audits FROM gone;
END
$body$;

COMMENT ON FUNCTION "postrider".forget(interval, interval, bigint)
    IS 'Deletes old letters and old rows of the audit.';
REVOKE ALL ON FUNCTION "postrider".forget(interval, interval, bigint) FROM PUBLIC;
GRANT EXECUTE ON FUNCTION "postrider".forget(interval, interval, bigint) TO postrider_relay;
