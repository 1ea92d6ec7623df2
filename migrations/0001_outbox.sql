-- The outbox: the table an application inserts its events into, inside its own transaction.
--
-- Why: an insert-only table read by the difference of two snapshots loses no row, keeps the order
-- of a key and leaves no dead tuples. Eight list partitions ("slots") take turns, so that retention
-- is a TRUNCATE of one leaf and never a DELETE. See docs/adr/0002 and docs/adr/0003.
--
-- Locks: only objects that this file creates; roles are shared by the whole cluster and are left
-- alone when they exist. Nothing that an application already uses is locked.

SET LOCAL lock_timeout = '5s';

-- Not IF NOT EXISTS, which asks for the right to create schemas even when there is nothing to do.
DO $body$
BEGIN
    IF to_regnamespace('"postrider"') IS NULL THEN
        CREATE SCHEMA "postrider";
    END IF;
END
$body$;

-- Roles belong to the cluster, not to the database: several databases, schemas and replicas may
-- create them at the same moment, and whoever comes second finds them there.
DO $body$
DECLARE
    role_name text;
    missing text[] := ARRAY(
        SELECT wanted FROM unnest(ARRAY['postrider_producer', 'postrider_consumer',
                                        'postrider_relay', 'postrider_operator']) AS wanted
        WHERE NOT EXISTS (SELECT FROM pg_catalog.pg_roles WHERE rolname = wanted));
BEGIN
    FOREACH role_name IN ARRAY missing LOOP
        BEGIN
            EXECUTE format('CREATE ROLE %I NOLOGIN', role_name);
        EXCEPTION
            WHEN duplicate_object OR unique_violation THEN
                NULL;
            WHEN insufficient_privilege THEN
                RAISE EXCEPTION 'role "%" is missing and "%" may not create roles',
                        role_name, current_user
                    USING ERRCODE = '42501',
                          HINT = 'a DBA must run once: ' || (
                              SELECT string_agg(format('CREATE ROLE %I NOLOGIN;', m), ' ')
                              FROM unnest(missing) AS m);
        END;
    END LOOP;
END
$body$;

GRANT USAGE ON SCHEMA "postrider"
    TO postrider_producer, postrider_consumer, postrider_relay, postrider_operator;

-- A version 7 UUID: 48 bits of Unix milliseconds, then random bits.
CREATE FUNCTION "postrider".uuid7() RETURNS uuid
LANGUAGE sql VOLATILE PARALLEL SAFE
RETURN (lpad(to_hex((date_part('epoch', clock_timestamp()) * 1000)::bigint), 12, '0')
        || '7' || substr(gen_random_uuid()::text, 16))::uuid;

-- What a writer has to know, in one number, because a sequence is read without a snapshot and
-- changed without a lock on any table: the slot that new rows go to (the low three bits, so that
-- every value has a partition) and, above it, the Unix second until which a sleeping relay wants
-- to be woken (0: it is awake or absent). It expires by itself.
CREATE SEQUENCE "postrider".gate AS bigint MINVALUE 0 START WITH 0 CACHE 1;

-- Wakes a sleeping relay and returns the slot. Only called while the gate is open. A transaction
-- that has executed NOTIFY cannot be prepared, so where the server allows two-phase commit nothing
-- is sent (the relay then polls more often), unless the database says
-- `ALTER DATABASE … SET postrider.wake = 'always'`.
CREATE FUNCTION "postrider".wake() RETURNS smallint
LANGUAGE plpgsql VOLATILE AS $body$
DECLARE
    gate CONSTANT bigint := pg_sequence_last_value('"postrider".gate'::regclass);
BEGIN
    IF gate >> 3 > date_part('epoch', clock_timestamp())
       AND (current_setting('max_prepared_transactions') = '0'
            OR current_setting('postrider.wake', true) = 'always') THEN
        PERFORM pg_notify('postrider_' || nspname, '')
        FROM pg_catalog.pg_namespace WHERE oid = '"postrider"'::regnamespace;
    END IF;
    RETURN gate & 7;
END
$body$;

CREATE TABLE "postrider".outbox (
    -- First on purpose: defaults are computed in column order, so a transaction has its number
    -- before it draws its first seq. The reader's lower bound on seq rests on that.
    tx                xid8        NOT NULL DEFAULT pg_current_xact_id(),
    seq               bigint      NOT NULL GENERATED ALWAYS AS IDENTITY (CACHE 1),
    -- A default instead of a trigger: it is part of the cached plan, where the condition of a
    -- trigger is parsed anew by every statement (docs/adr/0003).
    slot              smallint    NOT NULL DEFAULT
        CASE WHEN pg_sequence_last_value('"postrider".gate'::regclass) > 7 THEN "postrider".wake()
             ELSE (coalesce(pg_sequence_last_value('"postrider".gate'::regclass), 0) & 7)::smallint
        END,
    event_version     integer     NOT NULL DEFAULT 1,
    occurred_at       timestamptz NOT NULL DEFAULT clock_timestamp(),
    -- The text of uuid7(), which saves its look-up.
    event_id          uuid        NOT NULL DEFAULT
        (lpad(to_hex((date_part('epoch', clock_timestamp()) * 1000)::bigint), 12, '0')
         || '7' || substr(gen_random_uuid()::text, 16))::uuid,
    event_type        text        NOT NULL,
    kind              text        NOT NULL DEFAULT 'domain',
    aggregate_type    text,
    aggregate_id      text,
    aggregate_version bigint,
    source            text,
    subject           text,
    content_type      text        NOT NULL DEFAULT 'application/json',
    headers           jsonb       NOT NULL DEFAULT '{}',
    correlation_id    text,
    causation_id      text,
    actor             text,
    payload           json,
    payload_binary    bytea,
    PRIMARY KEY (seq, slot),
    CONSTRAINT outbox_event_type_not_empty CHECK (event_type <> ''),
    CONSTRAINT outbox_aggregate_complete
        CHECK ((aggregate_type IS NULL) = (aggregate_id IS NULL)),
    CONSTRAINT outbox_one_payload CHECK (payload IS NULL OR payload_binary IS NULL)
    -- No more: each statement parses the text of a constraint anew, so a longer one costs more than
    -- the insert. What else may be wrong with a row is found by emit() and by the relay.
) PARTITION BY LIST (slot);

COMMENT ON TABLE "postrider".outbox IS
    'Events to publish: insert inside your own transaction, or call emit().';

-- Finds the rows of a transaction that was still open when the position was taken.
CREATE INDEX outbox_tx_seq ON "postrider".outbox (tx, seq);

-- EXTERNAL keeps large values uncompressed: their size is known without reading them. Leaves are
-- emptied by TRUNCATE, so vacuuming them after inserts would only cost I/O.
DO $body$
BEGIN
    FOR slot IN 0..7 LOOP
        EXECUTE format(
            'CREATE TABLE "postrider".outbox_%1$s PARTITION OF "postrider".outbox '
            'FOR VALUES IN (%1$s) WITH (autovacuum_vacuum_insert_threshold = -1, '
            'toast.autovacuum_vacuum_insert_threshold = -1)', slot);
        EXECUTE format(
            'ALTER TABLE "postrider".outbox_%s '
            'ALTER COLUMN payload SET STORAGE EXTERNAL, '
            'ALTER COLUMN payload_binary SET STORAGE EXTERNAL, '
            'ALTER COLUMN headers SET STORAGE EXTERNAL', slot);
    END LOOP;
END
$body$;

ALTER TABLE "postrider".outbox
    ALTER COLUMN payload SET STORAGE EXTERNAL,
    ALTER COLUMN payload_binary SET STORAGE EXTERNAL,
    ALTER COLUMN headers SET STORAGE EXTERNAL;

REVOKE ALL ON FUNCTION "postrider".uuid7() FROM PUBLIC;
REVOKE ALL ON FUNCTION "postrider".wake() FROM PUBLIC;
GRANT EXECUTE ON FUNCTION "postrider".uuid7(), "postrider".wake() TO postrider_producer;

-- A producer may set what describes its event. tx, seq and slot are ours: a wrong value there
-- would hide the row from the relay.
GRANT INSERT (event_id, occurred_at, event_type, event_version, kind, aggregate_type,
              aggregate_id, aggregate_version, source, subject, content_type, headers,
              correlation_id, causation_id, actor, payload, payload_binary)
    ON "postrider".outbox TO postrider_producer;
GRANT SELECT (seq, event_id) ON "postrider".outbox TO postrider_producer;
GRANT SELECT ON SEQUENCE "postrider".gate TO postrider_producer;

GRANT SELECT ON "postrider".outbox TO postrider_relay, postrider_operator;
GRANT SELECT, UPDATE ON SEQUENCE "postrider".gate TO postrider_relay;
GRANT SELECT ON SEQUENCE "postrider".outbox_seq_seq TO postrider_relay, postrider_operator;
