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

-- A version 7 UUID: 48 bits of Unix milliseconds (eleven hexadecimal digits until the year 2527),
-- then random bits.
CREATE FUNCTION "postrider".uuid7() RETURNS uuid
LANGUAGE sql VOLATILE PARALLEL SAFE
RETURN ('0' || to_hex((date_part('epoch', clock_timestamp()) * 1000)::bigint)
        || '7' || substr(gen_random_uuid()::text, 16))::uuid;

-- The slot that new rows go to. A sequence, because it is read without a snapshot and changed
-- without a lock on any table; every value that it can have has a partition. Its low two bits are
-- the turn of retention. 4 and above is the wake-up gate: set while the relay sleeps.
CREATE SEQUENCE "postrider".gate AS smallint MINVALUE 0 MAXVALUE 7 START WITH 0 CACHE 1;

-- The Unix second until which a sleeping relay wants to be woken. The gate of a relay that died
-- asleep expires by itself.
CREATE SEQUENCE "postrider".wake_until AS bigint MINVALUE 0 START WITH 0 CACHE 1;

CREATE TABLE "postrider".outbox (
    -- First on purpose: defaults are computed in column order, so a transaction has its number
    -- before it draws its first seq. The reader's lower bound on seq rests on that.
    tx                xid8        NOT NULL DEFAULT pg_current_xact_id(),
    seq               bigint      NOT NULL GENERATED ALWAYS AS IDENTITY (CACHE 1),
    slot              smallint    NOT NULL
        DEFAULT coalesce(pg_sequence_last_value('"postrider".gate'::regclass), 0)::smallint,
    event_version     integer     NOT NULL DEFAULT 1,
    occurred_at       timestamptz NOT NULL DEFAULT clock_timestamp(),
    -- The text of uuid7(), which saves its look-up.
    event_id          uuid        NOT NULL DEFAULT
        ('0' || to_hex((date_part('epoch', clock_timestamp()) * 1000)::bigint)
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
    PRIMARY KEY (seq, slot)
    -- No CHECK: each statement parses the text of a constraint anew, and three small ones cost more
    -- than the insert itself (docs/adr/0003). What may be wrong with a row is refused by emit(),
    -- and for a plain INSERT by the relay, as a dead letter.
) PARTITION BY LIST (slot);

COMMENT ON TABLE "postrider".outbox IS
    'Events to publish: insert inside your own transaction, or call emit().';

-- The leaves inherit these. EXTERNAL keeps large values uncompressed: their size is known without
-- reading them. PLAIN keeps the other columns in the row, which has to fit into a block: so they
-- are bounded to some 8,000 bytes together (SQLSTATE 54000 beyond), without a constraint.
ALTER TABLE "postrider".outbox
    ALTER COLUMN payload SET STORAGE EXTERNAL,
    ALTER COLUMN payload_binary SET STORAGE EXTERNAL,
    ALTER COLUMN headers SET STORAGE EXTERNAL,
    ALTER COLUMN event_type SET STORAGE PLAIN,
    ALTER COLUMN kind SET STORAGE PLAIN,
    ALTER COLUMN aggregate_type SET STORAGE PLAIN,
    ALTER COLUMN aggregate_id SET STORAGE PLAIN,
    ALTER COLUMN source SET STORAGE PLAIN,
    ALTER COLUMN subject SET STORAGE PLAIN,
    ALTER COLUMN content_type SET STORAGE PLAIN,
    ALTER COLUMN correlation_id SET STORAGE PLAIN,
    ALTER COLUMN causation_id SET STORAGE PLAIN,
    ALTER COLUMN actor SET STORAGE PLAIN;

-- Finds the rows of a transaction that was still open when the position was taken.
CREATE INDEX outbox_tx_seq ON "postrider".outbox (tx, seq);

-- Wakes the relay, or closes the gate that a relay has left open when it died asleep: later rows
-- then go to the leaves without a trigger. A transaction that has executed NOTIFY cannot be
-- prepared, so where the server allows two-phase commit nothing is sent (the relay then polls more
-- often), unless the database says `ALTER DATABASE … SET postrider.wake = 'always'`.
-- SECURITY DEFINER, so that producers need no right to set the gate.
CREATE FUNCTION "postrider".wake() RETURNS trigger
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $body$
DECLARE
    gate CONSTANT bigint := pg_sequence_last_value('"postrider".gate'::regclass);
BEGIN
    IF pg_sequence_last_value('"postrider".wake_until'::regclass)
           > date_part('epoch', clock_timestamp()) THEN
        IF current_setting('max_prepared_transactions') = '0'
           OR current_setting('postrider.wake', true) = 'always' THEN
            PERFORM pg_notify('postrider_' || TG_TABLE_SCHEMA, '');
        END IF;
    ELSIF gate >= 4 THEN
        PERFORM setval('"postrider".gate'::regclass, gate & 3);
    END IF;
    RETURN NEW;
END
$body$;

-- Leaves are emptied by TRUNCATE, so vacuuming them after inserts would only cost I/O. Only the
-- leaves that take rows while the relay sleeps have the trigger, so an awake or absent relay costs
-- the writers nothing: no condition to evaluate, no function to call.
DO $body$
BEGIN
    FOR slot IN 0..7 LOOP
        EXECUTE format(
            'CREATE TABLE "postrider".outbox_%1$s PARTITION OF "postrider".outbox '
            'FOR VALUES IN (%1$s) WITH (autovacuum_vacuum_insert_threshold = -1, '
            'toast.autovacuum_vacuum_insert_threshold = -1)', slot);
        IF slot >= 4 THEN
            EXECUTE format(
                'CREATE TRIGGER outbox_wake BEFORE INSERT ON "postrider".outbox_%s '
                'FOR EACH ROW EXECUTE FUNCTION "postrider".wake()', slot);
        END IF;
    END LOOP;
END
$body$;

REVOKE ALL ON FUNCTION "postrider".uuid7() FROM PUBLIC;
REVOKE ALL ON FUNCTION "postrider".wake() FROM PUBLIC;
GRANT EXECUTE ON FUNCTION "postrider".uuid7() TO postrider_producer;

-- A producer may set what describes its event. tx, seq and slot are ours: a wrong value there
-- would hide the row from the relay.
GRANT INSERT (event_id, occurred_at, event_type, event_version, kind, aggregate_type,
              aggregate_id, aggregate_version, source, subject, content_type, headers,
              correlation_id, causation_id, actor, payload, payload_binary)
    ON "postrider".outbox TO postrider_producer;
GRANT SELECT (seq, event_id) ON "postrider".outbox TO postrider_producer;
GRANT SELECT ON SEQUENCE "postrider".gate TO postrider_producer;

GRANT SELECT ON "postrider".outbox TO postrider_relay, postrider_operator;
GRANT SELECT, UPDATE ON SEQUENCE "postrider".gate, "postrider".wake_until TO postrider_relay;
GRANT SELECT ON SEQUENCE "postrider".outbox_seq_seq TO postrider_relay, postrider_operator;
