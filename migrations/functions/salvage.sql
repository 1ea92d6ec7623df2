-- salvage(): the readable part of a row whose storage is damaged: its columns without headers and
-- payload, or of a row whose block is lost its place alone. Such a row keeps its leaf, so that it
-- may be repaired there.

CREATE OR REPLACE FUNCTION "postrider".salvage(
    wanted bigint,
    OUT tx xid8, OUT seq bigint, OUT slot smallint, OUT event_version integer,
    OUT occurred_at timestamptz, OUT event_id uuid, OUT event_type text, OUT kind text,
    OUT aggregate_type text, OUT aggregate_id text, OUT aggregate_version bigint, OUT source text,
    OUT subject text, OUT content_type text, OUT headers jsonb, OUT correlation_id text,
    OUT causation_id text, OUT actor text, OUT payload json, OUT payload_binary bytea,
    OUT payload_size bigint)
LANGUAGE plpgsql VOLATILE
SET enable_seqscan = off SET enable_bitmapscan = off SET jit = off
SET search_path = pg_catalog, pg_temp AS $body$
DECLARE
    leaf smallint;
    is_there boolean;
BEGIN
    headers := '{}';
    BEGIN
        SELECT o.tx, o.seq, o.slot, o.event_version, o.occurred_at, o.event_id,
               "postrider".legible(o.event_type), "postrider".legible(o.kind),
               "postrider".legible(o.aggregate_type), "postrider".legible(o.aggregate_id),
               o.aggregate_version, "postrider".legible(o.source), "postrider".legible(o.subject),
               "postrider".legible(o.content_type), "postrider".legible(o.correlation_id),
               "postrider".legible(o.causation_id), "postrider".legible(o.actor),
               coalesce(pg_column_size(o.payload), pg_column_size(o.payload_binary), 0)
        INTO tx, seq, slot, event_version, occurred_at, event_id, event_type, kind, aggregate_type,
             aggregate_id, aggregate_version, source, subject, content_type, correlation_id,
             causation_id, actor, payload_size
        FROM "postrider".outbox AS o
        WHERE o.seq = wanted;
    EXCEPTION WHEN OTHERS THEN
        seq := NULL;
    END;
    IF seq IS NOT NULL THEN
        RETURN;
    END IF;
    -- Number 3 is older than every transaction here, and no row has the nil UUID.
    tx := '3'; seq := wanted; slot := 0; event_version := 1; occurred_at := clock_timestamp();
    event_id := '00000000-0000-0000-0000-000000000000'; event_type := 'unreadable';
    kind := 'domain'; content_type := 'application/octet-stream'; payload_size := 0;
    FOR leaf IN 0..7 LOOP
        BEGIN
            EXECUTE format('SELECT count(o.tx) > 0 FROM "postrider".outbox_%s AS o WHERE o.seq = $1',
                           leaf)
            INTO is_there USING wanted;
        EXCEPTION WHEN OTHERS THEN
            is_there := true;
        END;
        IF is_there THEN
            slot := leaf;
        END IF;
    END LOOP;
END
$body$;

COMMENT ON FUNCTION "postrider".salvage(bigint) IS 'What can be read of a damaged row.';
REVOKE ALL ON FUNCTION "postrider".salvage(bigint) FROM PUBLIC;
GRANT EXECUTE ON FUNCTION "postrider".salvage(bigint) TO postrider_relay, postrider_operator;
