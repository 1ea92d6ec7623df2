-- What it takes to try letters again, to know what a broker has lost, and to heal it.
--
-- Why: an event that has to wait for its own sake leaves the fast path, and is tried again from
-- here, so that a busy answer for one message costs the others nothing. `next_attempt_at` is the
-- one thing that makes the relay look at a letter: at that time it tries the first unresolved
-- letter of this letter's key, whichever that is. So whoever resolves a letter that others wait
-- behind sets it to now, and what waits cannot be forgotten.
--
-- Locks: ACCESS EXCLUSIVE on position and letter, for as long as it takes to add columns without a
-- rewrite and to build an index over the letters that are waited for (none before this migration).

SET LOCAL lock_timeout = '5s';

ALTER TABLE "postrider".letter
    -- Where the stream holds it, once published.
    ADD COLUMN stream_seq bigint,
    -- Why an operator discarded it.
    ADD COLUMN reason text;

COMMENT ON COLUMN "postrider".letter.state IS
    'retrying: tried at next_attempt_at; held: behind an earlier one of its key; dead: set aside. '
    'Of a resolved letter: what it was last.';
COMMENT ON COLUMN "postrider".letter.next_attempt_at IS
    'When the relay looks at this letter''s key; also of a resolved letter that others wait behind.';
COMMENT ON COLUMN "postrider".letter.replaces IS
    'The event id that this letter had before an operator edited it.';
COMMENT ON COLUMN "postrider".letter.resolution IS 'published or discarded; null: not resolved.';

-- What the relay looks at next.
CREATE INDEX letter_due
    ON "postrider".letter (relay, next_attempt_at, seq)
    WHERE next_attempt_at IS NOT NULL;

ALTER TABLE "postrider".position
    -- Whatever was sent and is not settled has a higher stream sequence than this: where the
    -- look into the stream begins before anything uncertain is sent again.
    ADD COLUMN stream_floor bigint NOT NULL DEFAULT 0,
    -- The id of the event at stream_seq: another one there means that the stream was rewritten.
    ADD COLUMN stream_event_id uuid,
    -- Since when rows that were settled once are published again; letters may then belong to rows
    -- that the position has not passed.
    ADD COLUMN healing_since timestamptz,
    -- An operator's wish that the relay heal the stream, or null.
    ADD COLUMN heal_requested_at timestamptz;

-- A relay of before has noted no floor. It had at most so many events on their way.
UPDATE "postrider".position SET stream_floor = greatest(stream_seq - 131072, 0);

-- Where the relay was, every few seconds: what a stream has lost behind one of these is published
-- again from there.
CREATE TABLE "postrider".checkpoint (
    relay          text        NOT NULL,
    taken_at       timestamptz NOT NULL DEFAULT clock_timestamp(),
    stream_created text        NOT NULL,
    -- What was settled by then has a stream sequence of at most this.
    stream_seq     bigint      NOT NULL,
    stream_floor   bigint      NOT NULL,
    snapshot       pg_snapshot NOT NULL,
    floor          bigint      NOT NULL,
    target         pg_snapshot NOT NULL,
    target_floor   bigint      NOT NULL,
    bookmark       bigint      NOT NULL,
    system_id      bigint      NOT NULL,
    PRIMARY KEY (relay, taken_at)
);

COMMENT ON TABLE "postrider".checkpoint IS
    'Earlier positions of each relay, from which a broker that lost messages is healed.';

GRANT SELECT, INSERT, DELETE ON "postrider".checkpoint TO postrider_relay;
GRANT SELECT ON "postrider".checkpoint TO postrider_operator;
