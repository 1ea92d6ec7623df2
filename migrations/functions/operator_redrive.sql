-- operator_redrive(): has letters tried again: one batch. The letters' rows are locked in the order
-- of their seq, so that two operators wait for each other and never in a circle. The second one
-- finds the rows changed, and takes the next ones.
--
-- `choice` has the fields below; whatever is null, from event_type to ids, does not narrow it.
-- `state` is dead or retrying, `since` and `until` are times of death, `is_hopeless` means: also
-- what can never be published as it is, `above` a seq, `most` the rows of a batch. `channel` wakes
-- the relay.

CREATE OR REPLACE FUNCTION "postrider".operator_redrive(
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
    IF wanted.state NOT IN ('dead', 'retrying') THEN
        RAISE EXCEPTION 'letters that are % cannot be redriven', wanted.state
            USING ERRCODE = '22023';
    ELSIF wanted.ids IS NOT NULL THEN
        PERFORM "postrider".reread(wanted.ids);
        -- Few letters, which no index has in order.
        PERFORM set_config('enable_sort', 'on', true);
    END IF;
    WITH chosen AS MATERIALIZED (
        SELECT l.id, l.state, l.dead_at, l.attempts, l.next_attempt_at
        FROM "postrider".letter AS l
        WHERE (l.relay = wanted.relay) IS TRUE AND (l.state = wanted.state) IS TRUE
          AND l.resolved_at IS NULL
          -- Once more as what an index can be used for: relay and state unless there are ids, state
          -- unless there is a key. Without statistics the planner would take one index for as good
          -- as another.
          AND (wanted.ids IS NOT NULL OR l.relay = wanted.relay)
          AND (wanted.ids IS NOT NULL OR wanted.aggregate_id IS NOT NULL OR l.state = wanted.state)
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
          AND (wanted.is_hopeless
               OR NOT "postrider".is_hopeless(l.id, l.error_code, l.subject, l.dead_at))
          -- Copies of a row that could not be read are not the event.
          AND l.error_code <> 'unreadable_row'
          AND l.seq > wanted.above
        ORDER BY l.seq
        LIMIT wanted.most
        FOR UPDATE
    ), changed AS (
        UPDATE "postrider".letter AS l
        SET state = 'retrying', dead_at = NULL, attempts = 0, next_attempt_at = clock_timestamp()
        FROM chosen
        WHERE l.id = chosen.id AND l.resolved_at IS NULL AND (l.state = wanted.state) IS TRUE
        RETURNING l.id, l.relay, l.seq, l.event_id,
                  jsonb_build_object('state', chosen.state, 'dead_at', chosen.dead_at,
                                     'attempts', chosen.attempts,
                                     'next_attempt_at', chosen.next_attempt_at) AS before,
                  jsonb_build_object('state', l.state, 'dead_at', l.dead_at, 'attempts', l.attempts,
                                     'next_attempt_at', l.next_attempt_at) AS after
    ), recorded AS (
        INSERT INTO "postrider".audit (
            actor, action, reason, relay, letter_id, seq, event_id, before, after)
        SELECT operator_redrive.actor, 'redrive', operator_redrive.reason, c.relay, c.id, c.seq,
               c.event_id, c.before, c.after
        FROM changed AS c
        ORDER BY c.seq
    )
    SELECT coalesce(array_agg(c.id ORDER BY c.seq), '{}') AS ids, max(c.seq) AS last_seq
    FROM changed AS c
    INTO ids, last_seq;
    IF cardinality(ids) > 0 THEN
        PERFORM pg_notify(operator_redrive.channel, 'letters');
    END IF;
END
$body$;

COMMENT ON FUNCTION "postrider".operator_redrive(jsonb, text, text, text)
    IS 'Has letters tried again, with a record in the audit.';
REVOKE ALL ON FUNCTION "postrider".operator_redrive(jsonb, text, text, text) FROM PUBLIC;
GRANT EXECUTE ON FUNCTION "postrider".operator_redrive(jsonb, text, text, text)
    TO postrider_operator;
