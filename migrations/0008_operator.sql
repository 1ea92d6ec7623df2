-- What an operator may change of a letter, and the record of who changed what.
--
-- Why: redriving, discarding and editing are decisions of a person, who may have to answer for them
-- later. Each writes its row of the audit in the statement that changes the letter, so that there is
-- no change without a record and no record without a change. A payload is never copied there, only
-- its size and digest.
--
-- Locks: SHARE on letter while an index over the unresolved ones is built; else only objects that
-- this file creates.

SET LOCAL lock_timeout = '5s';

CREATE TABLE "postrider".audit (
    id            bigint      NOT NULL GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    acted_at      timestamptz NOT NULL DEFAULT clock_timestamp(),
    -- Who it was by their own account, and by that of the database.
    actor         text        NOT NULL CHECK (actor <> ''),
    database_user text        NOT NULL DEFAULT session_user,
    action        text        NOT NULL,
    reason        text,
    relay         text        NOT NULL,
    letter_id     bigint      NOT NULL,
    seq           bigint      NOT NULL,
    -- Before the action, when that changed it.
    event_id      uuid        NOT NULL,
    -- The columns that the action changed.
    before        jsonb       NOT NULL,
    after         jsonb       NOT NULL
);

COMMENT ON TABLE "postrider".audit IS 'What operators did to letters: who, when, what and why.';

-- What was done to one letter.
CREATE INDEX audit_letter ON "postrider".audit (letter_id, id);

-- Letters of one state in the order of their seq: pages of those that wait, batches of dead ones. The
-- state comes first, so that a planner without statistics cannot take this for an index by relay.
CREATE INDEX letter_unresolved_state
    ON "postrider".letter (state, relay, seq)
    WHERE resolved_at IS NULL;

GRANT UPDATE (state, attempts, next_attempt_at, dead_at, replaces, resolution, resolved_by,
              resolved_at, reason, payload_size, payload_omitted, event_id, event_type, subject,
              headers, payload, payload_binary)
    ON "postrider".letter TO postrider_operator;
-- The time and the database's user are the database's to say.
GRANT INSERT (actor, action, reason, relay, letter_id, seq, event_id, before, after)
    ON "postrider".audit TO postrider_operator;
GRANT SELECT ON "postrider".audit TO postrider_operator;
GRANT EXECUTE ON FUNCTION "postrider".uuid7() TO postrider_operator;
