-- What the relay writes: how far it has settled, and the events that left the fast path.
--
-- Why: progress is one row a relay and is updated once a batch, so a drained backlog costs no
-- write an event. An event that can never be published is recorded here with its reason, in the
-- same transaction that moves the position past it.
--
-- Locks: only objects that this file creates.

SET LOCAL lock_timeout = '5s';

-- Settled are: the rows visible in `snapshot`, and those visible in `target` whose seq is not
-- above `bookmark`. `floor` and `target_floor` are the seqs that every row of a transaction not
-- before the xmax of `snapshot` / `target` is above (src/outbox/sql/page.sql says why).
CREATE TABLE "postrider".position (
    relay          text        NOT NULL PRIMARY KEY CHECK (relay <> ''),
    snapshot       pg_snapshot NOT NULL DEFAULT '3:3:',
    floor          bigint      NOT NULL DEFAULT 0,
    target         pg_snapshot NOT NULL DEFAULT '3:3:',
    target_floor   bigint      NOT NULL DEFAULT 0,
    bookmark       bigint      NOT NULL DEFAULT 0,
    -- The last seq that anybody had drawn at the last settlement: no settled row is above it.
    drawn          bigint      NOT NULL DEFAULT 0,
    stream_name    text,
    stream_created text,
    stream_seq     bigint      NOT NULL DEFAULT 0,
    system_id      bigint      NOT NULL,
    term           bigint      NOT NULL DEFAULT 0,
    holder         text        NOT NULL DEFAULT '',
    -- Why nothing is published just now, for `postrider status`; null while events flow.
    note           text,
    acquired_at    timestamptz NOT NULL DEFAULT clock_timestamp(),
    updated_at     timestamptz NOT NULL DEFAULT clock_timestamp()
) WITH (fillfactor = 10, autovacuum_vacuum_threshold = 1000, autovacuum_vacuum_scale_factor = 0);

COMMENT ON TABLE "postrider".position IS 'How far each relay has settled the outbox.';

CREATE TABLE "postrider".letter (
    id                bigint      NOT NULL GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    relay             text        NOT NULL,
    state             text        NOT NULL CHECK (state IN ('retrying', 'held', 'dead')),
    -- Whether later events of the same key wait until this letter is resolved.
    holds             boolean     NOT NULL,
    attempts          integer     NOT NULL DEFAULT 0,
    next_attempt_at   timestamptz,
    error_code        text        NOT NULL,
    error             text        NOT NULL,
    fingerprint       text        NOT NULL,
    first_failed_at   timestamptz NOT NULL DEFAULT clock_timestamp(),
    last_failed_at    timestamptz NOT NULL DEFAULT clock_timestamp(),
    dead_at           timestamptz,
    replaces          uuid,
    resolution        text,
    resolved_by       text,
    resolved_at       timestamptz,
    -- The event's own columns. A payload too large to carry stays in the outbox: then
    -- payload_omitted is true and retention keeps the turn until the letter is resolved.
    payload_size      bigint      NOT NULL,
    payload_omitted   boolean     NOT NULL,
    tx                xid8        NOT NULL,
    seq               bigint      NOT NULL,
    slot              smallint    NOT NULL,
    event_version     integer     NOT NULL,
    occurred_at       timestamptz NOT NULL,
    event_id          uuid        NOT NULL,
    event_type        text        NOT NULL,
    kind              text        NOT NULL,
    aggregate_type    text,
    aggregate_id      text,
    aggregate_version bigint,
    source            text,
    subject           text,
    content_type      text        NOT NULL,
    headers           jsonb       NOT NULL,
    correlation_id    text,
    causation_id      text,
    actor             text,
    payload           json,
    payload_binary    bytea,
    CONSTRAINT letter_once UNIQUE (relay, seq),
    CONSTRAINT letter_dead_has_time CHECK ((state = 'dead') = (dead_at IS NOT NULL)),
    CONSTRAINT letter_resolved_by_somebody
        CHECK ((resolved_at IS NULL) = (resolution IS NULL))
);

COMMENT ON TABLE "postrider".letter IS
    'Events that left the fast path: dead with a reason, or waiting behind such an event.';

ALTER TABLE "postrider".letter
    ALTER COLUMN payload SET STORAGE EXTERNAL,
    ALTER COLUMN payload_binary SET STORAGE EXTERNAL,
    ALTER COLUMN headers SET STORAGE EXTERNAL;

-- The unresolved letters of one key in order. Hashed, because an id may be longer than an index
-- entry: compare the id itself too.
CREATE INDEX letter_unresolved_key
    ON "postrider".letter (relay, hashtextextended(aggregate_id, 0), seq)
    WHERE resolved_at IS NULL;
-- The newest dead letters, page by page.
CREATE INDEX letter_unresolved_dead
    ON "postrider".letter (dead_at, id)
    WHERE resolved_at IS NULL AND state = 'dead';
-- What keeps retention from emptying a turn.
CREATE INDEX letter_keeps_turn
    ON "postrider".letter (slot)
    WHERE resolved_at IS NULL AND payload_omitted;

GRANT SELECT, INSERT, UPDATE ON "postrider".position, "postrider".letter TO postrider_relay;
GRANT SELECT ON "postrider".position, "postrider".letter TO postrider_operator;
