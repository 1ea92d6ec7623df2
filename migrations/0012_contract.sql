-- Tables for the conditions that the reader and the functions rest on: pinned where that is free,
-- checked where it is not, and repaired.
--
-- Why: a sequence with a cache, one that was set back, a default that was changed or a trigger that
-- was disabled makes rows that the reader passes over, and nothing else shows it. broken_contract()
-- names every such condition; the relay calls it at each start and each minute, `postrider check`
-- on demand, and repair_contract() repairs. docs/guarantees.md lists them.
--
-- Locks: ACCESS EXCLUSIVE on outbox and its leaves for as long as it takes to change a default
-- (nothing is rewritten), SHARE ROW EXCLUSIVE on the leaves 4 to 7.

SET LOCAL lock_timeout = '5s';

-- This function is here because the default below refers to it. functions/first_gate.sql says what
-- it is.
CREATE FUNCTION "postrider".first_gate() RETURNS bigint
LANGUAGE sql VOLATILE SET search_path = pg_catalog, pg_temp
RETURN CASE WHEN has_sequence_privilege('"postrider".gate'::regclass::oid, 'USAGE, SELECT') THEN 0
            ELSE currval('"postrider".gate'::regclass) END;
GRANT EXECUTE ON FUNCTION "postrider".first_gate() TO PUBLIC;

-- The slot of a new row: a null must not choose one. A call without arguments is the smallest
-- expression: each statement that inserts parses it anew.
ALTER TABLE "postrider".outbox ALTER COLUMN slot SET DEFAULT
    coalesce(pg_sequence_last_value('"postrider".gate'::regclass), "postrider".first_gate())::smallint;

-- The gate gets its first value now: a call of first_gate() costs as much as the rest of an insert.
SELECT setval('"postrider".gate', gate.last_value, true) FROM "postrider".gate AS gate
WHERE NOT gate.is_called;

-- A session with session_replication_role = replica wakes the relay too.
DO $body$
BEGIN
    FOR slot IN 4..7 LOOP
        EXECUTE format(
            'ALTER TABLE "postrider".outbox_%s ENABLE ALWAYS TRIGGER outbox_wake', slot);
    END LOOP;
END
$body$;

-- The last time that every condition held, and where the relay was then. Rows that were settled by
-- then are published; when a condition breaks later, the relay reads again from there.
CREATE TABLE "postrider".contract (
    relay          text        NOT NULL PRIMARY KEY,
    verified_at    timestamptz NOT NULL DEFAULT clock_timestamp(),
    snapshot       pg_snapshot NOT NULL,
    floor          bigint      NOT NULL,
    stream_created_ns bigint,
    stream_floor   bigint      NOT NULL,
    -- The file of the sequence: ALTER SEQUENCE and RESTART IDENTITY give it another one.
    sequence_file  oid         NOT NULL,
    drawn          bigint      NOT NULL
) WITH (fillfactor = 50);

COMMENT ON TABLE "postrider".contract IS
    'When the conditions that each relay rests on were last verified, and its position then.';

GRANT SELECT, INSERT, UPDATE ON "postrider".contract TO postrider_relay;
GRANT SELECT ON "postrider".contract TO postrider_operator;
