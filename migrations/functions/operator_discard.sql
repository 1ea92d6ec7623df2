-- operator_discard(): gives dead letters up for good: one batch. The mark has the relay load their
-- keys, and let go what is held behind them. Parameters and locks are those of
-- operator_redrive.sql.

CREATE OR REPLACE FUNCTION "postrider".operator_discard(
    text, text, text, text, text, text, timestamptz, timestamptz, bigint[], bigint, bigint, text, text,
    text, OUT ids bigint[], OUT last_seq bigint)
LANGUAGE plpgsql VOLATILE SECURITY DEFINER
SET enable_seqscan = off SET enable_sort = off SET enable_hashjoin = off SET enable_mergejoin = off
SET jit = off SET plan_cache_mode = force_custom_plan
SET search_path = pg_catalog, pg_temp AS $body$
#variable_conflict use_column
BEGIN
    IF $9 IS NOT NULL THEN
        PERFORM set_config('enable_sort', 'on', true);
    END IF;
    WITH chosen AS MATERIALIZED (
        SELECT l.id, l.next_attempt_at
        FROM "postrider".letter AS l
        WHERE (l.relay = $1::text) IS TRUE AND (l.state = 'dead') IS TRUE AND l.resolved_at IS NULL
          -- Once more as what an index can be used for: relay and state unless there are ids, state unless
          -- there is a key. Without statistics the planner would take one index for as good as another.
          AND ($9::bigint[] IS NOT NULL OR l.relay = $1::text)
          AND ($9::bigint[] IS NOT NULL OR $4::text IS NOT NULL OR l.state = 'dead')
          AND ($2::text IS NULL OR l.event_type = $2::text)
          AND ($4::text IS NULL
               OR hashtextextended(l.aggregate_id, 0) = hashtextextended($4::text, 0)
                  AND l.aggregate_type = $3::text AND l.aggregate_id = $4::text)
          AND ($5::text IS NULL OR l.error_code = $5::text)
          AND ($6::text IS NULL OR l.fingerprint = $6::text)
          AND ($7::timestamptz IS NULL OR l.dead_at >= $7::timestamptz)
          AND ($8::timestamptz IS NULL OR l.dead_at <= $8::timestamptz)
          AND ($9::bigint[] IS NULL OR l.id = ANY ($9::bigint[]))
          AND l.seq > $10::bigint
        ORDER BY l.seq
        LIMIT $11::bigint
        FOR UPDATE
    ), changed AS (
        UPDATE "postrider".letter AS l
        SET resolution = 'discarded', resolved_by = $12::text, resolved_at = clock_timestamp(),
            reason = $13::text, next_attempt_at = clock_timestamp()
        FROM chosen
        WHERE l.id = chosen.id AND l.resolved_at IS NULL AND (l.state = 'dead') IS TRUE
        RETURNING l.id, l.relay, l.seq, l.event_id,
                  jsonb_build_object('resolution', NULL, 'resolved_by', NULL, 'resolved_at', NULL,
                                     'reason', NULL, 'next_attempt_at', chosen.next_attempt_at) AS before,
                  jsonb_build_object('resolution', l.resolution, 'resolved_by', l.resolved_by,
                                     'resolved_at', l.resolved_at, 'reason', l.reason,
                                     'next_attempt_at', l.next_attempt_at) AS after
    ), recorded AS (
        INSERT INTO "postrider".audit (
            actor, action, reason, relay, letter_id, seq, event_id, before, after)
        SELECT $12::text, 'discard', $13::text, c.relay, c.id, c.seq, c.event_id, c.before, c.after
        FROM changed AS c
        ORDER BY c.seq
    )
    SELECT coalesce(array_agg(c.id ORDER BY c.seq), '{}') AS ids, max(c.seq) AS last_seq
    FROM changed AS c
    INTO ids, last_seq;
    IF cardinality(ids) > 0 THEN
        PERFORM pg_notify($14, 'letters');
    END IF;
END
$body$;

COMMENT ON FUNCTION "postrider".operator_discard(
    text, text, text, text, text, text, timestamptz, timestamptz, bigint[], bigint, bigint, text, text,
    text)
    IS 'Gives dead letters up, with a record in the audit.';
REVOKE ALL ON FUNCTION "postrider".operator_discard(
    text, text, text, text, text, text, timestamptz, timestamptz, bigint[], bigint, bigint, text, text,
    text) FROM PUBLIC;
GRANT EXECUTE ON FUNCTION "postrider".operator_discard(
    text, text, text, text, text, text, timestamptz, timestamptz, bigint[], bigint, bigint, text, text,
    text) TO postrider_operator;
