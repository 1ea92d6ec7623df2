-- What is known of the stream: its identity as a number of our own, how much was published to it,
-- and losses that a healing could not restore.
--
-- Why: the identity was the text that a client library made of a time. Another version of the
-- library would have made another text, and every stream would have looked like a new one. And a
-- loss of what the outbox no longer has was silent.
--
-- Locks: ACCESS EXCLUSIVE on position, checkpoint and audit, for as long as adding columns without
-- a rewrite takes.

SET LOCAL lock_timeout = '5s';

-- Nanoseconds since the Unix epoch of RFC 3339 (2026-11-26T22:55:51.5Z), or of what the time
-- library of older programs shows (2026-11-26 22:55:51.5 +00:00:00). Null for what is neither.
CREATE FUNCTION pg_temp.nanoseconds(stored text) RETURNS bigint
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $body$
DECLARE
    part CONSTANT text[] := regexp_match(stored,
        '^(\d{4})-(\d{1,2})-(\d{1,2})[T ](\d{1,2}):(\d{1,2}):(\d{1,2})(?:\.(\d{1,9}))?'
        ' ?(?:(Z|UTC)|([+-])(\d{2}):?(\d{2})(?::?(\d{2}))?)$');
    ahead bigint := 0;
BEGIN
    IF part IS NULL THEN
        RETURN NULL;
    END IF;
    IF part[8] IS NULL THEN
        ahead := part[10]::bigint * 3600 + part[11]::bigint * 60 + coalesce(part[12], '0')::bigint;
        IF part[9] = '-' THEN
            ahead := -ahead;
        END IF;
    END IF;
    RETURN (date_part('epoch', make_timestamptz(part[1]::integer, part[2]::integer,
                part[3]::integer, part[4]::integer, part[5]::integer, part[6]::integer, 'UTC')
            )::bigint - ahead) * 1000000000 + rpad(coalesce(part[7], ''), 9, '0')::bigint;
EXCEPTION
    WHEN datetime_field_overflow OR numeric_value_out_of_range THEN
        RETURN NULL;
END
$body$;

ALTER TABLE "postrider".position
    ADD COLUMN stream_created_ns bigint,
    ADD COLUMN published bigint NOT NULL DEFAULT 0;
ALTER TABLE "postrider".checkpoint
    ADD COLUMN stream_created_ns bigint,
    ADD COLUMN published bigint NOT NULL DEFAULT 0,
    -- Programs of before this migration write it as long as they run; nobody reads it any more.
    ALTER COLUMN stream_created DROP NOT NULL;

COMMENT ON COLUMN "postrider".position.stream_created_ns IS
    'When the stream was created, in nanoseconds since 1970; null: not known, which is no other stream.';
COMMENT ON COLUMN "postrider".position.published IS
    'How many rows were settled as published; at a healing it goes back with the position.';
COMMENT ON COLUMN "postrider".position.stream_created IS
    'Written by programs older than stream_created_ns; read by none.';

-- Nobody has counted before: no more were published than the stream had given sequences.
UPDATE "postrider".position
SET stream_created_ns = pg_temp.nanoseconds(stream_created), published = stream_seq;
UPDATE "postrider".checkpoint
SET stream_created_ns = pg_temp.nanoseconds(stream_created), published = stream_seq;
DROP FUNCTION pg_temp.nanoseconds(text);

-- What the stream has lost and the outbox no longer has. It stands until a person has acknowledged
-- it.
CREATE TABLE "postrider".loss (
    id              bigint      NOT NULL GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    relay           text        NOT NULL,
    noticed_at      timestamptz NOT NULL DEFAULT clock_timestamp(),
    stream_name     text,
    -- The highest sequence that was acknowledged, and the last one that the stream then had.
    acknowledged_seq bigint     NOT NULL,
    last_seq        bigint      NOT NULL,
    -- Events that were published and may be gone for good. Some of the first of them may still be
    -- in the stream: those published in the seconds after the checkpoint that the healing began
    -- from.
    events_at_most  bigint      NOT NULL CHECK (events_at_most > 0),
    acknowledged_at timestamptz,
    acknowledged_by text,
    reason          text,
    CONSTRAINT loss_acknowledged_by_somebody
        CHECK ((acknowledged_at IS NULL) = (acknowledged_by IS NULL))
);

COMMENT ON TABLE "postrider".loss IS
    'Published events that a stream has lost and the outbox no longer had.';

CREATE INDEX loss_standing ON "postrider".loss (relay) WHERE acknowledged_at IS NULL;

-- How many published events a healing cannot publish again, when the stream is the one created at
-- that time and ends at that sequence: of those since the checkpoint that it goes back to, those
-- that the outbox does not have. It reads what the outbox retains.
CREATE FUNCTION "postrider".unrestorable(relay text, created_ns bigint, last_seq bigint)
RETURNS bigint
LANGUAGE sql STABLE
SET search_path = pg_catalog, pg_temp SET enable_seqscan = on SET enable_hashjoin = on AS $body$
    WITH chosen AS MATERIALIZED (
        SELECT c.snapshot, c.target, c.bookmark, c.published FROM "postrider".checkpoint AS c
        WHERE c.relay = $1 AND c.stream_created_ns = $2 AND c.stream_seq <= $3
          AND c.system_id = (SELECT s.system_identifier FROM pg_control_system() AS s)
        ORDER BY c.taken_at DESC LIMIT 1
    ), retained AS MATERIALIZED (
        SELECT count(*) AS events
        FROM "postrider".outbox AS o
        JOIN "postrider".position AS p ON p.relay = $1
        LEFT JOIN chosen AS c ON true
        WHERE (pg_visible_in_snapshot(o.tx, p.snapshot)
               OR o.seq <= p.bookmark AND pg_visible_in_snapshot(o.tx, p.target))
          AND NOT coalesce(pg_visible_in_snapshot(o.tx, c.snapshot)
                           OR o.seq <= c.bookmark AND pg_visible_in_snapshot(o.tx, c.target), false)
          -- A row that left as a letter was not settled as published; one that became a letter
          -- afterwards, because it was missing, was.
          AND NOT EXISTS (SELECT FROM "postrider".letter AS l
                          WHERE l.relay = $1 AND l.seq = o.seq AND l.fingerprint <> 'missing')
    )
    SELECT greatest(p.published - coalesce((SELECT chosen.published FROM chosen), 0)
                    - retained.events, 0)
    FROM "postrider".position AS p CROSS JOIN retained
    WHERE p.relay = $1
$body$;

-- An act that concerns no letter has none.
ALTER TABLE "postrider".audit
    ALTER COLUMN letter_id DROP NOT NULL,
    ALTER COLUMN seq DROP NOT NULL,
    ALTER COLUMN event_id DROP NOT NULL;

-- A person has seen all losses of a relay that stand. Returns how many there were.
CREATE FUNCTION "postrider".acknowledge_loss(relay text, actor text, reason text)
RETURNS bigint
LANGUAGE sql VOLATILE SECURITY DEFINER
SET search_path = pg_catalog, pg_temp AS $body$
    WITH seen AS (
        UPDATE "postrider".loss AS l
        SET acknowledged_at = clock_timestamp(), acknowledged_by = $2, reason = $3
        WHERE l.relay = $1 AND l.acknowledged_at IS NULL
        RETURNING l.id, l.relay, l.events_at_most
    ), recorded AS (
        INSERT INTO "postrider".audit (actor, action, reason, relay, before, after)
        SELECT $2, 'acknowledge_loss', $3, seen.relay,
               jsonb_build_object('loss', seen.id, 'events_at_most', seen.events_at_most),
               '{"acknowledged": true}'
        FROM seen
        RETURNING 1
    )
    SELECT count(*) FROM recorded
$body$;

REVOKE ALL ON FUNCTION "postrider".unrestorable(text, bigint, bigint) FROM PUBLIC;
REVOKE ALL ON FUNCTION "postrider".acknowledge_loss(text, text, text) FROM PUBLIC;
GRANT EXECUTE ON FUNCTION "postrider".unrestorable(text, bigint, bigint) TO postrider_relay;
GRANT EXECUTE ON FUNCTION "postrider".acknowledge_loss(text, text, text) TO postrider_operator;
GRANT SELECT, INSERT ON "postrider".loss TO postrider_relay;
-- A cluster that pg_upgrade has made has another identifier.
GRANT UPDATE (system_id) ON "postrider".checkpoint TO postrider_relay;
GRANT SELECT ON "postrider".loss TO postrider_operator;
