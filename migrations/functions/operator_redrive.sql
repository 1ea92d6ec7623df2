-- operator_redrive(): has letters tried again: one batch. The letters' rows are locked in the order
-- of their seq, so that two operators wait for each other and never in a circle. Who comes second
-- finds the rows changed, and takes the next ones.
--
-- $1 relay; each of the next, when not null, narrows the choice: $2 event type, $3 and $4 aggregate
-- type and id, $5 error code, $6 fingerprint, $7 dead since then at the earliest, $8 at the latest,
-- $9 ids; $10 only above this seq, $11 rows at most, $12 actor, $13 null or reason, $14 channel
-- that wakes the relay, $15 dead or retrying, $16 also what is hopeless

CREATE OR REPLACE FUNCTION "postrider".operator_redrive(
    text, text, text, text, text, text, timestamptz, timestamptz, bigint[], bigint, bigint, text, text,
    text, text, boolean, OUT ids bigint[], OUT last_seq bigint)
LANGUAGE plpgsql VOLATILE SECURITY DEFINER
SET enable_seqscan = off SET enable_sort = off SET enable_hashjoin = off SET enable_mergejoin = off
SET jit = off SET plan_cache_mode = force_custom_plan
SET search_path = pg_catalog, pg_temp AS $body$
#variable_conflict use_column
BEGIN
    IF $15 NOT IN ('dead', 'retrying') THEN
        RAISE EXCEPTION 'letters that are % cannot be redriven', $15 USING ERRCODE = '22023';
    ELSIF $9 IS NOT NULL THEN
        PERFORM "postrider".reread($9);
        -- Few letters, which no index has in order.
        PERFORM set_config('enable_sort', 'on', true);
    END IF;
    WITH chosen AS MATERIALIZED (
        SELECT l.id, l.state, l.dead_at, l.attempts, l.next_attempt_at
        FROM "postrider".letter AS l
        WHERE (l.relay = $1::text) IS TRUE AND (l.state = $15::text) IS TRUE AND l.resolved_at IS NULL
          -- Once more as what an index can be used for: relay and state unless there are ids, state unless
          -- there is a key. Without statistics the planner would take one index for as good as another.
          AND ($9::bigint[] IS NOT NULL OR l.relay = $1::text)
          AND ($9::bigint[] IS NOT NULL OR $4::text IS NOT NULL OR l.state = $15::text)
          AND ($2::text IS NULL OR l.event_type = $2::text)
          AND ($4::text IS NULL
               OR hashtextextended(l.aggregate_id, 0) = hashtextextended($4::text, 0)
                  AND l.aggregate_type = $3::text AND l.aggregate_id = $4::text)
          AND ($5::text IS NULL OR l.error_code = $5::text)
          AND ($6::text IS NULL OR l.fingerprint = $6::text)
          AND ($7::timestamptz IS NULL OR l.dead_at >= $7::timestamptz)
          AND ($8::timestamptz IS NULL OR l.dead_at <= $8::timestamptz)
          AND ($9::bigint[] IS NULL OR l.id = ANY ($9::bigint[]))
          AND ($16::boolean OR NOT "postrider".is_hopeless(l.id, l.error_code, l.subject, l.dead_at))
          -- What the letter has of such a row is not the event.
          AND l.error_code <> 'unreadable_row'
          AND l.seq > $10::bigint
        ORDER BY l.seq
        LIMIT $11::bigint
        FOR UPDATE
    ), changed AS (
        UPDATE "postrider".letter AS l
        SET state = 'retrying', dead_at = NULL, attempts = 0, next_attempt_at = clock_timestamp()
        FROM chosen
        WHERE l.id = chosen.id AND l.resolved_at IS NULL AND (l.state = $15::text) IS TRUE
        RETURNING l.id, l.relay, l.seq, l.event_id,
                  jsonb_build_object('state', chosen.state, 'dead_at', chosen.dead_at,
                                     'attempts', chosen.attempts,
                                     'next_attempt_at', chosen.next_attempt_at) AS before,
                  jsonb_build_object('state', l.state, 'dead_at', l.dead_at, 'attempts', l.attempts,
                                     'next_attempt_at', l.next_attempt_at) AS after
    ), recorded AS (
        INSERT INTO "postrider".audit (
            actor, action, reason, relay, letter_id, seq, event_id, before, after)
        SELECT $12::text, 'redrive', $13::text, c.relay, c.id, c.seq, c.event_id, c.before, c.after
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

COMMENT ON FUNCTION "postrider".operator_redrive(
    text, text, text, text, text, text, timestamptz, timestamptz, bigint[], bigint, bigint, text, text,
    text, text, boolean)
    IS 'Has letters tried again, with a record in the audit.';
REVOKE ALL ON FUNCTION "postrider".operator_redrive(
    text, text, text, text, text, text, timestamptz, timestamptz, bigint[], bigint, bigint, text, text,
    text, text, boolean) FROM PUBLIC;
GRANT EXECUTE ON FUNCTION "postrider".operator_redrive(
    text, text, text, text, text, text, timestamptz, timestamptz, bigint[], bigint, bigint, text, text,
    text, text, boolean) TO postrider_operator;
