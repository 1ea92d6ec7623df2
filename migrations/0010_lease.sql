-- The lease: who leads a relay, until when, and how far it may publish.
--
-- Why: a session's advisory lock is kept by a leader that is frozen or cut off, is shared by everybody
-- behind a pooler, and can be taken by any role that may connect. A row of our own table has none of
-- these faults: it expires by this server's clock, and only the relay's role may write it. The
-- protocol is in docs/leadership.md.
--
-- Locks: ACCESS EXCLUSIVE on position and audit, for as long as it takes to add columns without a rewrite.

SET LOCAL lock_timeout = '5s';

ALTER TABLE "postrider".position
    -- Until when the leader may publish, by this server's clock; null when nobody leads.
    ADD COLUMN lease_until timestamptz,
    -- The process that leads, or led last: a random id of its start.
    ADD COLUMN instance uuid,
    -- Its session on this server, whose end is seen before the lease ends; null behind a pooler.
    ADD COLUMN backend_pid integer,
    ADD COLUMN backend_start timestamptz,
    -- When this server started: after a restart or a failover the two above mean nothing.
    ADD COLUMN server_start timestamptz,
    -- Where that process runs, as only that machine can tell whether it still does.
    ADD COLUMN process text,
    -- No row with a higher seq has been handed to the broker by this leader or an earlier one; null
    -- when a program without leases has led.
    ADD COLUMN sent_to bigint;

-- What nobody could go on from: a time that never comes, and a term after which no number comes.
ALTER TABLE "postrider".position
    ADD CONSTRAINT position_has_finite_times
        CHECK (isfinite(lease_until) AND isfinite(acquired_at) AND isfinite(updated_at)),
    ADD CONSTRAINT position_term_has_room CHECK (term BETWEEN 0 AND (1::bigint << 62));

COMMENT ON COLUMN "postrider".position.lease_until IS
    'Until when the leader may publish, by this server''s clock; null: nobody leads.';
COMMENT ON COLUMN "postrider".position.holder IS 'Who leads, or led last: host and process.';

-- What the instance that leads found out itself, and when it said so last: `postrider status` shows it,
-- and a report that is old is a finding too. {"term": ..., "findings": [{code, severity, cause, next}]}
ALTER TABLE "postrider".position
    ADD COLUMN report jsonb,
    ADD COLUMN reported_at timestamptz CHECK (isfinite(reported_at));

-- Whether an instance runs this relay now. The one place that knows how that is told. A lease that
-- ends later than any instance can have written counts only while its leader reports.
CREATE FUNCTION "postrider".is_led(relay text) RETURNS boolean
LANGUAGE sql STABLE SET search_path = pg_catalog, pg_temp
AS $body$
    SELECT EXISTS (
        SELECT FROM "postrider".position AS p
        WHERE p.relay = $1 AND p.lease_until > clock_timestamp()
          AND (p.lease_until <= clock_timestamp() + interval '5 minutes'
               OR p.reported_at > clock_timestamp() - interval '5 minutes'))
$body$;

-- What is done to a relay as a whole is audited too, and has no letter.
ALTER TABLE "postrider".audit
    ALTER COLUMN letter_id DROP NOT NULL,
    ALTER COLUMN seq DROP NOT NULL,
    ALTER COLUMN event_id DROP NOT NULL;

-- Gives up a relay's position, so that its rows do not stay in the outbox for it. Its unresolved letters
-- are discarded, when that is wanted. `outcome` is forgotten, or what stands against it: unknown (there
-- is no such position), led (an instance runs it), letters (some are unresolved).
CREATE FUNCTION "postrider".forget_relay(
    name text, actor text, reason text, discard_letters boolean,
    OUT outcome text, OUT letters bigint)
LANGUAGE plpgsql VOLATILE SECURITY DEFINER SET search_path = pg_catalog, pg_temp
AS $body$
DECLARE
    found_position "postrider".position;
BEGIN
    letters := 0;
    SELECT p.* INTO found_position FROM "postrider".position AS p WHERE p.relay = name FOR UPDATE;
    IF found_position.relay IS NULL THEN
        outcome := 'unknown';
        RETURN;
    END IF;
    IF "postrider".is_led(name) THEN
        outcome := 'led';
        RETURN;
    END IF;
    SELECT count(*) INTO letters FROM "postrider".letter AS l
    WHERE l.relay = name AND l.resolved_at IS NULL;
    IF letters > 0 AND NOT discard_letters THEN
        outcome := 'letters';
        RETURN;
    END IF;
    WITH changed AS (
        UPDATE "postrider".letter AS l
        SET resolution = 'discarded', resolved_by = forget_relay.actor,
            resolved_at = clock_timestamp(), reason = forget_relay.reason, next_attempt_at = NULL
        WHERE l.relay = name AND l.resolved_at IS NULL
        RETURNING l.id, l.seq, l.event_id, l.state
    )
    INSERT INTO "postrider".audit (
        actor, action, reason, relay, letter_id, seq, event_id, before, after)
    SELECT forget_relay.actor, 'discard', forget_relay.reason, name, c.id, c.seq, c.event_id,
           jsonb_build_object('resolution', NULL, 'state', c.state),
           jsonb_build_object('resolution', 'discarded')
    FROM changed AS c
    ORDER BY c.seq;
    DELETE FROM "postrider".checkpoint AS c WHERE c.relay = name;
    DELETE FROM "postrider".position AS p WHERE p.relay = name;
    -- A later migration makes this table.
    IF to_regclass('"postrider".contract') IS NOT NULL THEN
        EXECUTE 'DELETE FROM "postrider".contract AS c WHERE c.relay = $1' USING name;
    END IF;
    INSERT INTO "postrider".audit (actor, action, reason, relay, before, after)
    VALUES (forget_relay.actor, 'forget_relay', forget_relay.reason, name,
            jsonb_build_object('term', found_position.term, 'holder', found_position.holder,
                               'updated_at', found_position.updated_at,
                               'bookmark', found_position.bookmark,
                               'stream_name', found_position.stream_name),
            jsonb_build_object('letters_discarded', letters));
    outcome := 'forgotten';
END
$body$;

REVOKE ALL ON FUNCTION "postrider".is_led(text) FROM PUBLIC;
REVOKE ALL ON FUNCTION "postrider".forget_relay(text, text, text, boolean) FROM PUBLIC;
GRANT EXECUTE ON FUNCTION "postrider".is_led(text) TO postrider_relay, postrider_operator;
GRANT EXECUTE ON FUNCTION "postrider".forget_relay(text, text, text, boolean)
    TO postrider_operator;
