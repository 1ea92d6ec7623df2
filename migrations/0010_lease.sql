-- The lease: who leads a relay, until when, and how far it may publish.
--
-- Why: a session's advisory lock is kept by a leader that is frozen or cut off, is shared by
--   everybody behind a pooler, and can be taken by any role that may connect. A row of our own
--   table has none of these faults: it expires by this server's clock, and only the relay's role
--   may write it. The protocol is in docs/leadership.md.
--
-- Locks: ACCESS EXCLUSIVE on position and audit, for as long as it takes to add columns without a
--   rewrite.

SET LOCAL lock_timeout = '5s';

ALTER TABLE "postrider".position
    -- Until when the leader may publish, by this server's clock; null when nobody leads.
    ADD COLUMN lease_until timestamptz,
    -- The process that leads, or led last: a random id of its start.
    ADD COLUMN instance uuid,
    -- Its session on this server, whose end is seen before the lease ends; null behind a pooler.
    ADD COLUMN backend_pid integer,
    ADD COLUMN backend_start timestamptz,
    -- The start of this server: after a restart or a failover the two above mean nothing.
    ADD COLUMN server_start timestamptz,
    -- The place of that process: only the same machine can see whether it still runs.
    ADD COLUMN process text,
    -- No row with a higher seq has been handed to the broker by this leader or an earlier one; null
    -- when a program without leases has led.
    ADD COLUMN sent_to bigint;

-- Constraints against values that no instance could go on from: a time that never comes, and a term
-- after which no number comes.
ALTER TABLE "postrider".position
    ADD CONSTRAINT position_has_finite_times
        CHECK (isfinite(lease_until) AND isfinite(acquired_at) AND isfinite(updated_at)),
    ADD CONSTRAINT position_term_has_room CHECK (term BETWEEN 0 AND (1::bigint << 62));

COMMENT ON COLUMN "postrider".position.lease_until IS
    'Until when the leader may publish, by this server''s clock; null: nobody leads.';
COMMENT ON COLUMN "postrider".position.holder IS 'Who leads, or led last: host and process.';

-- Findings of the instance that leads, and the time of its last report: `postrider status` shows
-- it, and a report that is old is a finding too. {"term": ..., "findings": [{code, severity, cause,
-- next}]}
ALTER TABLE "postrider".position
    ADD COLUMN report jsonb,
    ADD COLUMN reported_at timestamptz CHECK (isfinite(reported_at));

-- Acts on a relay as a whole are audited too, and have no letter.
ALTER TABLE "postrider".audit
    ALTER COLUMN letter_id DROP NOT NULL,
    ALTER COLUMN seq DROP NOT NULL,
    ALTER COLUMN event_id DROP NOT NULL;
