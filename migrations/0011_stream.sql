-- Facts about the stream: its identity as a number of our own, how much was published to it,
-- and losses that a healing could not restore.
--
-- Why: the identity was the text that a client library made of a time. Another version of the
-- library would have made another text, and every stream would have looked like a new one. And a
-- loss of what the outbox no longer has was silent.
--
-- Locks: ACCESS EXCLUSIVE on position and checkpoint, for as long as adding columns without a
-- rewrite takes.

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
    -- Programs of before this migration write it as long as they run; no program reads it any more.
    ALTER COLUMN stream_created DROP NOT NULL;

COMMENT ON COLUMN "postrider".position.stream_created_ns IS
    'When the stream was created, in nanoseconds since 1970; null: not known, which is no other stream.';
COMMENT ON COLUMN "postrider".position.published IS
    'How many rows were settled as published; at a healing it goes back with the position.';
COMMENT ON COLUMN "postrider".position.stream_created IS
    'Written by programs older than stream_created_ns; read by none.';

-- No program has counted before: no more were published than the stream had given sequences.
UPDATE "postrider".position
SET stream_created_ns = pg_temp.nanoseconds(stream_created), published = stream_seq;
UPDATE "postrider".checkpoint
SET stream_created_ns = pg_temp.nanoseconds(stream_created), published = stream_seq;
DROP FUNCTION pg_temp.nanoseconds(text);

-- Events that the stream has lost and the outbox no longer has. A loss stands until a person has
-- acknowledged it.
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

GRANT SELECT, INSERT ON "postrider".loss TO postrider_relay;
-- A cluster that pg_upgrade has made has another identifier.
GRANT UPDATE (system_id) ON "postrider".checkpoint TO postrider_relay;
GRANT SELECT ON "postrider".loss TO postrider_operator;
