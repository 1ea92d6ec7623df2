-- The outbox: the table an application inserts its events into, inside its own transaction.
--
-- Why: an insert-only table read by the difference of two snapshots loses no row, keeps the order
-- of a key and leaves no dead tuples. Six list partitions ("slots") take turns, so that retention
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

-- A version 7 UUID: 48 bits of Unix milliseconds, then random bits. Plain SQL without a SET clause
-- so that the planner inlines it into the INSERT.
CREATE FUNCTION "postrider".uuid7() RETURNS uuid
LANGUAGE sql VOLATILE PARALLEL SAFE
RETURN (lpad(to_hex((date_part('epoch', clock_timestamp()) * 1000)::bigint), 12, '0')
        || '7' || substr(gen_random_uuid()::text, 16))::uuid;

-- The slot that new rows go to. A sequence, because a sequence is read without a snapshot and
-- changed without a lock on the table; the bounds make a value without a partition impossible.
CREATE SEQUENCE "postrider".current_slot AS smallint MINVALUE 0 MAXVALUE 5 START WITH 0 CACHE 1;

-- The wake-up gate: the Unix second until which a sleeping relay wants to be woken. It expires by
-- itself, so a relay that dies asleep costs the writers nothing.
CREATE SEQUENCE "postrider".gate AS bigint MINVALUE 0 START WITH 0 CACHE 1;

CREATE TABLE "postrider".outbox (
    -- First on purpose: defaults are computed in column order, so a transaction has its number
    -- before it draws its first seq. The reader's lower bound on seq rests on that.
    tx                xid8        NOT NULL DEFAULT pg_current_xact_id(),
    seq               bigint      NOT NULL GENERATED ALWAYS AS IDENTITY (CACHE 1),
    slot              smallint    NOT NULL
        DEFAULT coalesce(pg_sequence_last_value('"postrider".current_slot'::regclass), 0),
    event_version     integer     NOT NULL DEFAULT 1,
    occurred_at       timestamptz NOT NULL DEFAULT clock_timestamp(),
    event_id          uuid        NOT NULL DEFAULT "postrider".uuid7(),
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
    CONSTRAINT outbox_one_payload CHECK (payload IS NULL OR payload_binary IS NULL),
    -- What the relay reads beside the payload is bounded here, so that no row can blow its memory.
    CONSTRAINT outbox_bounded CHECK (
        octet_length(event_type) <= 8192
        AND octet_length(kind) <= 8192
        AND octet_length(content_type) <= 8192
        AND (aggregate_id IS NULL
             OR octet_length(aggregate_type) <= 1024 AND octet_length(aggregate_id) <= 1024)
        AND (subject IS NULL OR octet_length(subject) <= 8192)
        AND (source IS NULL OR octet_length(source) <= 8192)
        AND (correlation_id IS NULL OR octet_length(correlation_id) <= 8192)
        AND (causation_id IS NULL OR octet_length(causation_id) <= 8192)
        AND (actor IS NULL OR octet_length(actor) <= 8192)
        AND pg_column_size(headers) <= 1048576)
) PARTITION BY LIST (slot);

COMMENT ON TABLE "postrider".outbox IS
    'Events to publish: insert inside your own transaction, or call emit().';

-- Finds the rows of a transaction that was still open when the position was taken.
CREATE INDEX outbox_tx_seq ON "postrider".outbox (tx, seq);

-- EXTERNAL keeps large values uncompressed: their size is known without reading them. Leaves are
-- emptied by TRUNCATE, so vacuuming them after inserts would only cost I/O.
DO $body$
BEGIN
    FOR slot IN 0..5 LOOP
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

-- Wakes a sleeping relay. A transaction that has executed NOTIFY cannot be prepared, so where the
-- server allows two-phase commit nothing is sent (the relay then polls more often), unless the
-- database says `ALTER DATABASE … SET postrider.wake = 'always'`.
CREATE FUNCTION "postrider".wake() RETURNS trigger
LANGUAGE plpgsql AS $body$
BEGIN
    IF current_setting('max_prepared_transactions') = '0'
       OR current_setting('postrider.wake', true) = 'always' THEN
        PERFORM pg_notify('postrider_' || TG_TABLE_SCHEMA, '');
    END IF;
    RETURN NULL;
END
$body$;

-- The condition is evaluated without calling the function: while the relay is awake or absent a
-- statement pays for reading one sequence, nothing else.
CREATE TRIGGER outbox_wake AFTER INSERT ON "postrider".outbox
    FOR EACH STATEMENT
    WHEN (pg_sequence_last_value('"postrider".gate'::regclass)
          > date_part('epoch', clock_timestamp()))
    EXECUTE FUNCTION "postrider".wake();

REVOKE ALL ON FUNCTION "postrider".uuid7() FROM PUBLIC;
REVOKE ALL ON FUNCTION "postrider".wake() FROM PUBLIC;
GRANT EXECUTE ON FUNCTION "postrider".uuid7()
    TO postrider_producer, postrider_consumer, postrider_relay, postrider_operator;

-- A producer may set what describes its event. tx, seq and slot are ours: a wrong value there
-- would hide the row from the relay.
GRANT INSERT (event_id, occurred_at, event_type, event_version, kind, aggregate_type,
              aggregate_id, aggregate_version, source, subject, content_type, headers,
              correlation_id, causation_id, actor, payload, payload_binary)
    ON "postrider".outbox TO postrider_producer;
GRANT SELECT (seq, event_id) ON "postrider".outbox TO postrider_producer;
GRANT SELECT ON SEQUENCE "postrider".gate, "postrider".current_slot TO postrider_producer;

GRANT SELECT ON "postrider".outbox TO postrider_relay, postrider_operator;
GRANT SELECT, UPDATE ON SEQUENCE "postrider".gate TO postrider_relay;
GRANT SELECT ON SEQUENCE "postrider".current_slot, "postrider".outbox_seq_seq
    TO postrider_relay, postrider_operator;
