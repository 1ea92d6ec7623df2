-- operator_discard(): gives dead letters up for good: one batch. The mark has the relay load their
-- keys, and let go what is held behind them. Parameters and locks are those of
-- operator_redrive.sql.

CREATE OR REPLACE FUNCTION "postrider".operator_discard(
    choice jsonb, actor text, reason text, channel text, OUT ids bigint[], OUT last_seq bigint)
LANGUAGE plpgsql VOLATILE SECURITY DEFINER
SET enable_seqscan = off SET enable_sort = off SET enable_hashjoin = off SET enable_mergejoin = off
SET jit = off SET plan_cache_mode = force_custom_plan
SET search_path = pg_catalog, pg_temp AS $body$
#variable_conflict use_column
DECLARE
    wanted record;
BEGIN
    SELECT c.* INTO wanted FROM jsonb_to_record(choice) AS c (
        relay text, state text, event_type text, aggregate_type text, aggregate_id text,
        error_code text, fingerprint text, since timestamptz, until timestamptz, ids bigint[],
        is_hopeless boolean, above bigint, most bigint);
    IF wanted.ids IS NOT NULL THEN
        PERFORM set_config('enable_sort', 'on', true);
    END IF;
    WITH chosen AS MATERIALIZED (
        SELECT l.id, l.next_attempt_at
        FROM "postrider".letter AS l
        WHERE (l.relay = wanted.relay) IS TRUE AND (l.state = 'dead') IS TRUE
          AND l.resolved_at IS NULL
          -- Once more as what an index can be used for: relay and state unless there are ids, state
          -- unless there is a key. Without statistics the planner would take one index for as good
          -- as another.
          AND (wanted.ids IS NOT NULL OR l.relay = wanted.relay)
          AND (wanted.ids IS NOT NULL OR wanted.aggregate_id IS NOT NULL OR l.state = 'dead')
          AND (wanted.event_type IS NULL OR l.event_type = wanted.event_type)
          AND (wanted.aggregate_id IS NULL
               OR hashtextextended(l.aggregate_id, 0) = hashtextextended(wanted.aggregate_id, 0)
                  AND l.aggregate_type = wanted.aggregate_type
                  AND l.aggregate_id = wanted.aggregate_id)
          AND (wanted.error_code IS NULL OR l.error_code = wanted.error_code)
          AND (wanted.fingerprint IS NULL OR l.fingerprint = wanted.fingerprint)
          AND (wanted.since IS NULL OR l.dead_at >= wanted.since)
          AND (wanted.until IS NULL OR l.dead_at <= wanted.until)
          AND (wanted.ids IS NULL OR l.id = ANY (wanted.ids))
          AND l.seq > wanted.above
        ORDER BY l.seq
        LIMIT wanted.most
        FOR UPDATE
    ), changed AS (
        UPDATE "postrider".letter AS l
        SET resolution = 'discarded', resolved_by = operator_discard.actor,
            resolved_at = clock_timestamp(), reason = operator_discard.reason,
            next_attempt_at = clock_timestamp()
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
        SELECT operator_discard.actor, 'discard', operator_discard.reason, c.relay, c.id, c.seq,
               c.event_id, c.before, c.after
        FROM changed AS c
        ORDER BY c.seq
    )
    SELECT coalesce(array_agg(c.id ORDER BY c.seq), '{}') AS ids, max(c.seq) AS last_seq
    FROM changed AS c
    INTO ids, last_seq;
    IF cardinality(ids) > 0 THEN
        PERFORM pg_notify(operator_discard.channel, 'letters');
    END IF;
END
$body$;

COMMENT ON FUNCTION "postrider".operator_discard(jsonb, text, text, text)
    IS 'Gives dead letters up, with a record in the audit.';
REVOKE ALL ON FUNCTION "postrider".operator_discard(jsonb, text, text, text) FROM PUBLIC;
GRANT EXECUTE ON FUNCTION "postrider".operator_discard(jsonb, text, text, text)
    TO postrider_operator;
