-- The conditions that the reader and the functions rest on: pinned where that is free, checked
-- where it is not, and repaired.
--
-- Why: a sequence with a cache, one that was set back, a default that was changed or a trigger that
-- was disabled makes rows that the reader passes over, and nothing else shows it. broken_contract()
-- names every such condition; the relay calls it at each start and each minute, `postrider check`
-- on demand. 0016_repair.sql repairs. docs/guarantees.md lists them.
--
-- Locks: ACCESS EXCLUSIVE on outbox and its leaves for as long as it takes to change a default
-- (nothing is rewritten), SHARE ROW EXCLUSIVE on the leaves 4 to 7.

SET LOCAL lock_timeout = '5s';

-- The last value of a sequence, 0 before its first one. From version 18 on pg_sequence_last_value
-- is null for a role without the privilege; currval refuses such a role with 42501 in every
-- version. The planner puts the expression into the calling statement.
CREATE FUNCTION "postrider".sequence_value(sequence regclass) RETURNS bigint
LANGUAGE sql VOLATILE
RETURN coalesce(pg_sequence_last_value(sequence),
                CASE WHEN has_sequence_privilege(sequence::oid, 'USAGE, SELECT') THEN 0
                     ELSE currval(sequence) END);

-- Where functions are not everybody's by default, this one is all the same.
GRANT EXECUTE ON FUNCTION "postrider".sequence_value(regclass) TO PUBLIC;

-- The gate of a sequence that has no value yet, as after a dump of the structure alone. In version
-- 18 that is also what a role sees that may not read it: such a role is refused as in every
-- version. The SET clause keeps the body out of the statements that insert.
CREATE FUNCTION "postrider".first_gate() RETURNS bigint
LANGUAGE sql VOLATILE SET search_path = pg_catalog, pg_temp
RETURN CASE WHEN has_sequence_privilege('"postrider".gate'::regclass::oid, 'USAGE, SELECT') THEN 0
            ELSE currval('"postrider".gate'::regclass) END;
-- Said for databases whose default privileges say otherwise: every insert calls it.
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

-- Every condition that does not hold. `remedy` is repair (repair_contract() repairs it, and rows
-- may have been passed over), wake (the same function repairs it, and nothing was passed over),
-- warn (rows wait, and an operator decides) or refuse (an operator has to act before events flow).
-- Reads catalogs, the positions, the highest seq and the highest transaction number.
--
-- SECURITY INVOKER: what the calling role may not see is one of the conditions.
CREATE FUNCTION "postrider".broken_contract(wanted text)
RETURNS TABLE (code text, remedy text, problem text, fix text)
LANGUAGE sql VOLATILE
SET search_path = pg_catalog, pg_temp SET quote_all_identifiers = off
AS $body$
    WITH outbox AS MATERIALIZED (
        SELECT '"postrider".outbox'::regclass::oid AS oid
    ), last AS MATERIALIZED (
        SELECT "postrider".sequence_value('"postrider".outbox_seq_seq'::regclass) AS value
    ), sequence AS MATERIALIZED (
        -- Of the rows only those above the sequence are looked for: there are none, unless somebody
        -- chose their numbers. From the highest down it would go over all that is not committed
        -- yet.
        SELECT s.seqcache, s.seqincrement, s.seqcycle, last.value AS last_value,
               pg_relation_filenode(s.seqrelid::regclass) AS file,
               greatest(
                   (SELECT max(p.drawn) FROM "postrider".position AS p
                    WHERE p.system_id = (SELECT system_identifier FROM pg_control_system())),
                   (SELECT max(k.drawn) FROM "postrider".contract AS k),
                   (SELECT o.seq FROM "postrider".outbox AS o WHERE o.seq > last.value
                    ORDER BY o.seq DESC LIMIT 1), 0) AS highest
        FROM last CROSS JOIN pg_sequence AS s
        WHERE s.seqrelid = '"postrider".outbox_seq_seq'::regclass
    ), col AS MATERIALIZED (
        SELECT a.attname AS name, a.attnum AS number, a.attidentity AS identity, a.attnotnull,
               coalesce(pg_get_expr(d.adbin, d.adrelid), '') AS expression
        FROM pg_attribute AS a
        LEFT JOIN pg_attrdef AS d ON d.adrelid = a.attrelid AND d.adnum = a.attnum
        WHERE a.attrelid = (SELECT oid FROM outbox) AND a.attname IN ('tx', 'seq', 'slot')
    ), leaf AS MATERIALIZED (
        SELECT i.inhrelid AS oid,
               substring(pg_get_expr(c.relpartbound, c.oid) FROM '[(]''?([0-9]+)''?[)]') AS slot
        FROM pg_inherits AS i JOIN pg_class AS c ON c.oid = i.inhrelid
        WHERE i.inhparent = (SELECT oid FROM outbox)
    ), indexed AS MATERIALIZED (
        SELECT string_to_array(i.indkey::text, ' ') AS key
        FROM pg_index AS i
        WHERE i.indrelid = (SELECT oid FROM outbox) AND i.indisvalid AND i.indpred IS NULL
          AND NOT EXISTS (SELECT FROM pg_inherits AS h JOIN pg_index AS l ON l.indexrelid = h.inhrelid
                          WHERE h.inhparent = i.indexrelid AND NOT (l.indisvalid AND l.indisready))
    )
    SELECT 'sequence_cache', 'repair',
           format('the sequence of outbox.seq has a cache of %s: numbers come out of order', s.seqcache),
           'ALTER SEQUENCE "postrider".outbox_seq_seq CACHE 1'
    FROM sequence AS s WHERE s.seqcache <> 1
    UNION ALL
    SELECT 'sequence_step', 'repair',
           format('the sequence of outbox.seq has increment %s%s', s.seqincrement,
                  CASE WHEN s.seqcycle THEN ' and begins anew at its end' ELSE '' END),
           'ALTER SEQUENCE "postrider".outbox_seq_seq INCREMENT 1 NO CYCLE'
    FROM sequence AS s WHERE s.seqincrement <> 1 OR s.seqcycle
    UNION ALL
    SELECT 'sequence_back', 'repair',
           format('the sequence of outbox.seq is at %s, and %s was drawn before', s.last_value, s.highest),
           format('ALTER SEQUENCE "postrider".outbox_seq_seq RESTART WITH %s', s.highest + 1)
    FROM sequence AS s WHERE s.last_value < s.highest AND s.highest < 9223372036854775807
    UNION ALL
    SELECT 'sequence_end', 'refuse',
           format('a row has the seq %s: no number comes after it', s.highest),
           format('DELETE FROM "postrider".outbox WHERE seq = %s, and insert the event again without seq',
                  s.highest)
    FROM sequence AS s WHERE s.highest = 9223372036854775807
    UNION ALL
    SELECT 'sequence_altered', 'repair',
           'the sequence of outbox.seq was altered or restarted since it was last verified',
           'alter it only while no relay runs and nothing is pending'
    FROM sequence AS s JOIN "postrider".contract AS k ON k.sequence_file <> s.file
    WHERE k.relay = wanted AND s.seqcache = 1 AND s.last_value >= s.highest
    UNION ALL
    SELECT 'identity', 'repair', 'outbox.seq is no longer GENERATED ALWAYS',
           'ALTER TABLE "postrider".outbox ALTER COLUMN seq SET GENERATED ALWAYS'
    FROM col WHERE col.name = 'seq' AND col.identity = 'd'
    UNION ALL
    SELECT 'identity', 'refuse', 'outbox.seq draws no number of its own',
           'restore the identity of the column from migration 0001_outbox.sql'
    WHERE NOT EXISTS (SELECT FROM col WHERE col.name = 'seq' AND col.identity <> '')
    UNION ALL
    SELECT 'column_default', 'refuse', format('outbox.%s has the default %s', col.name,
               coalesce(nullif(col.expression, ''), 'null')),
           format('restore the default (`postrider migrate --print` has it), then run `postrider audit`: '
                  'rows that came meanwhile may be missing in the stream')
    FROM col
    WHERE col.name = 'tx' AND (col.expression <> 'pg_current_xact_id()' OR NOT col.attnotnull)
       OR col.name = 'slot'
          AND (col.expression !~ 'pg_sequence_last_value[(].*gate.*first_gate[(]' OR NOT col.attnotnull)
    UNION ALL
    SELECT 'column_order', 'refuse', 'outbox.tx does not come before outbox.seq',
           'recreate the table as migration 0001_outbox.sql has it'
    WHERE (SELECT t.number > s.number FROM col AS t, col AS s WHERE t.name = 'tx' AND s.name = 'seq')
    UNION ALL
    SELECT 'partition', 'refuse',
           format('outbox has no partition for slot %s', string_agg(n::text, ', ' ORDER BY n)),
           'ALTER TABLE "postrider".outbox ATTACH PARTITION it again, FOR VALUES IN (its slot)'
    FROM generate_series(0, 7) AS n
    WHERE NOT EXISTS (SELECT FROM leaf WHERE leaf.slot = n::text)
    HAVING count(*) > 0
    UNION ALL
    SELECT 'index', 'refuse', format('outbox has no valid index on (%s)', array_to_string(w.names, ', ')),
           format('REINDEX it, or create it as migration 0001_outbox.sql has it')
    FROM (VALUES (ARRAY['seq', 'slot']), (ARRAY['tx', 'seq'])) AS w (names)
    WHERE NOT EXISTS (
        SELECT FROM indexed AS i
        WHERE i.key = (SELECT array_agg(col.number::text ORDER BY array_position(w.names, col.name::text))
                       FROM col WHERE col.name = ANY (w.names)))
    UNION ALL
    SELECT 'persistence', 'refuse',
           format('%s is not logged: a crash of the server would empty it', string_agg(c.oid::regclass::text, ', ')),
           'ALTER TABLE (or SEQUENCE) its name SET LOGGED'
    FROM pg_class AS c
    WHERE c.relpersistence <> 'p'
      AND (c.oid IN ('"postrider".outbox_seq_seq'::regclass, '"postrider".gate'::regclass,
                     '"postrider".position'::regclass, '"postrider".letter'::regclass)
           OR c.oid IN (SELECT leaf.oid FROM leaf))
    HAVING count(*) > 0
    UNION ALL
    SELECT 'row_security', 'refuse', format('row-level security may hide rows of %s', c.oid::regclass),
           format('ALTER TABLE %s DISABLE ROW LEVEL SECURITY, or give the relay''s role BYPASSRLS and do not FORCE it',
                  c.oid::regclass)
    FROM pg_class AS c
    WHERE c.oid IN ('"postrider".outbox'::regclass, '"postrider".position'::regclass,
                    '"postrider".letter'::regclass)
      AND (row_security_active(c.oid) OR c.relrowsecurity AND c.relforcerowsecurity)
    UNION ALL
    SELECT 'rule', 'refuse', 'outbox has a rule, which may turn an insert into something else',
           'DROP RULE its name ON "postrider".outbox'
    WHERE EXISTS (SELECT FROM pg_rewrite AS r JOIN outbox ON r.ev_class = outbox.oid)
    UNION ALL
    SELECT 'wake', 'wake', format('the trigger outbox_wake is missing or not ENABLE ALWAYS on %s',
                                  string_agg(leaf.oid::regclass::text, ', ' ORDER BY leaf.slot)),
           'ALTER TABLE each of them ENABLE ALWAYS TRIGGER outbox_wake; until then events may wait for relay.idle_interval'
    FROM leaf
    WHERE leaf.slot IN ('4', '5', '6', '7')
      AND NOT EXISTS (SELECT FROM pg_trigger AS t
                      WHERE t.tgrelid = leaf.oid AND t.tgname = 'outbox_wake' AND t.tgenabled = 'A')
    HAVING count(*) > 0
    UNION ALL
    -- Visible rows are of transactions below the snapshot's xmax, unless they came from elsewhere.
    SELECT 'foreign_rows', 'warn',
           format('%s%s rows have transaction numbers that this cluster has not come to, as rows copied '
                  'from another cluster have: they wait',
                  CASE WHEN f.count > 10000 THEN 'more than ' ELSE '' END, least(f.count, 10000)),
           'to publish them start once with `postrider run --rescan`; or delete them, and insert '
           'them again without tx, seq and slot'
    FROM (SELECT count(*) AS count FROM (
              SELECT FROM "postrider".outbox AS o
              WHERE o.tx >= pg_snapshot_xmax(pg_current_snapshot()) LIMIT 10001) AS o) AS f
    WHERE f.count > 0
$body$;

-- Gives rows of another cluster (foreign_rows above) the number of this transaction and a new seq,
-- so that they are read like rows that are inserted now. Returns how many.
CREATE FUNCTION "postrider".adopt_rows() RETURNS bigint
LANGUAGE plpgsql VOLATILE SECURITY DEFINER
SET search_path = pg_catalog, pg_temp SET row_security = off AS $body$
DECLARE
    -- First, so that it has its number before it draws a seq, as every insert has.
    own_tx CONSTANT xid8 := pg_current_xact_id();
    source record;
    adopted bigint := 0;
BEGIN
    FOR source IN
        SELECT o.seq, o.slot FROM "postrider".outbox AS o
        WHERE o.tx > own_tx AND o.tx >= pg_snapshot_xmax(pg_current_snapshot())
        ORDER BY o.seq, o.slot
    LOOP
        UPDATE "postrider".outbox AS o SET tx = own_tx, seq = DEFAULT
        WHERE o.seq = source.seq AND o.slot = source.slot;
        adopted := adopted + 1;
    END LOOP;
    RETURN adopted;
END
$body$;

-- As in 0005, for a database that came without its sequences too (as logical replication copies
-- tables): there a seq says nothing, because new rows may have drawn it again. So everything up to
-- the sequence's present value is published, and the whole stream is searched for what it has of
-- it.
CREATE OR REPLACE FUNCTION "postrider".rescan(wanted text, wanted_term bigint) RETURNS bigint
LANGUAGE plpgsql VOLATILE SECURITY DEFINER
SET search_path = pg_catalog, pg_temp SET row_security = off AS $body$
DECLARE
    cluster_id CONSTANT bigint := (SELECT system_identifier FROM pg_control_system());
    drawn_here CONSTANT bigint := "postrider".sequence_value('"postrider".outbox_seq_seq');
    came_along boolean;
    pending bigint;
BEGIN
    -- All relays at once: their positions speak of the same rows.
    PERFORM FROM "postrider".position AS p ORDER BY p.relay FOR UPDATE;
    IF NOT EXISTS (SELECT FROM "postrider".position AS p
                   WHERE p.relay = wanted AND p.term = wanted_term) THEN
        RETURN NULL;
    END IF;
    SELECT coalesce(bool_and(p.drawn <= drawn_here), true) INTO came_along
    FROM "postrider".position AS p WHERE p.system_id <> cluster_id;
    DELETE FROM "postrider".contract AS k USING "postrider".position AS p
    WHERE p.relay = k.relay AND p.system_id <> cluster_id;
    -- One statement, so that the rows and the new position are of the same snapshot.
    WITH foreign_position AS MATERIALIZED (
        SELECT * FROM "postrider".position AS p WHERE p.system_id <> cluster_id
    ), moved AS (
        UPDATE "postrider".outbox AS o
        SET tx = CASE WHEN (came_along OR o.seq > drawn_here) AND (SELECT bool_and(
                            o.seq <= p.drawn
                            AND (pg_visible_in_snapshot(o.tx, p.snapshot)
                                 OR o.seq <= p.bookmark
                                    AND pg_visible_in_snapshot(o.tx, p.target)))
                            FROM foreign_position AS p)
                      THEN '3'::xid8 ELSE '4'::xid8 END
        WHERE EXISTS (SELECT FROM foreign_position)
        RETURNING o.tx
    ), present AS MATERIALIZED (
        SELECT format('4:%s:4%s', pg_snapshot_xmax(s.snapshot),
                      (SELECT string_agg(',' || x.tx::text, '' ORDER BY x.tx)
                       FROM pg_snapshot_xip(s.snapshot) AS x (tx)))::pg_snapshot AS snapshot
        FROM pg_current_snapshot() AS s (snapshot)
    ), reset AS (
        UPDATE "postrider".position AS p
        SET snapshot = present.snapshot, floor = 0, target = present.snapshot,
            target_floor = 0, bookmark = 0, system_id = cluster_id, updated_at = clock_timestamp(),
            stream_floor = CASE WHEN came_along THEN p.stream_floor ELSE 0 END
        FROM present WHERE p.system_id <> cluster_id
    )
    SELECT count(*) INTO pending FROM moved WHERE moved.tx <> '3'::xid8;
    RETURN pending;
END
$body$;

-- As in 0001, with the gate read so that a lost privilege is an error.
CREATE OR REPLACE FUNCTION "postrider".wake() RETURNS trigger
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $body$
DECLARE
    gate CONSTANT bigint := "postrider".sequence_value('"postrider".gate'::regclass);
BEGIN
    IF "postrider".sequence_value('"postrider".wake_until'::regclass)
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

-- True: the first time, do the work and commit. False: it is done. A repeated id raises nothing
-- under READ COMMITTED, so the transaction stays usable; a claim that another transaction has not
-- committed yet is waited for. Under REPEATABLE READ and SERIALIZABLE an id that was claimed after
-- the transaction's snapshot was taken raises 40001: roll back and try again, then it is false.
CREATE OR REPLACE FUNCTION "postrider".claim(consumer text, event_id uuid) RETURNS boolean
LANGUAGE plpgsql VOLATILE AS $body$
#variable_conflict use_variable
BEGIN
    IF consumer IS NULL OR consumer = '' OR octet_length(consumer) > 255 THEN
        RAISE EXCEPTION 'consumer is empty or longer than 255 bytes'
            USING ERRCODE = '22023', HINT = 'pass the same short name in every instance of a consumer';
    ELSIF event_id IS NULL THEN
        RAISE EXCEPTION 'event_id is null'
            USING ERRCODE = '22023', HINT = 'pass the message''s Nats-Msg-Id';
    END IF;
    INSERT INTO "postrider".processed (event_id, consumer, slot)
    VALUES (event_id, consumer, "postrider".processed_slot(event_id))
    ON CONFLICT DO NOTHING;
    RETURN FOUND;
END
$body$;

-- As in 0004, and under READ COMMITTED only: an older snapshot would not see the claims that were
-- committed before the lock was taken, and forget them.
CREATE OR REPLACE FUNCTION "postrider".processed_maintain(
    retention interval DEFAULT '30 days', OUT leaves integer, OUT timeless bigint)
LANGUAGE plpgsql VOLATILE SECURITY DEFINER
SET search_path = pg_catalog, pg_temp SET row_security = off AS $body$
DECLARE
    leaf_millis CONSTANT bigint := 1 << 28;
    now_at CONSTANT timestamptz := clock_timestamp();
    epoch bigint := floor(date_part('epoch', now_at) * 1000)::bigint / leaf_millis;
    ends_at timestamptz;
    leaf text;
    in_use boolean;
BEGIN
    leaves := 0;
    IF retention IS NULL OR retention < '1 hour' OR retention > '90 days' THEN
        RAISE EXCEPTION 'retention of processed keys is %', retention
            USING ERRCODE = '22023', HINT = 'use 1 hour to 90 days: longer than any redrive';
    ELSIF current_setting('transaction_isolation') <> 'read committed' THEN
        RAISE EXCEPTION 'processed_maintain() runs under READ COMMITTED only'
            USING ERRCODE = '25001', HINT = 'call it outside of other transactions';
    END IF;
    FOR slot IN 0..31 LOOP
        -- The last time that this slot stands for, with one leaf of room for clocks that are ahead.
        ends_at := to_timestamp(
            (epoch + 2 - (((epoch + 1 - slot) % 32) + 32) % 32) * leaf_millis / 1000.0);
        CONTINUE WHEN ends_at > now_at - retention;
        leaf := format('"postrider".processed_%s', slot);
        EXECUTE format('SELECT EXISTS (SELECT FROM %s)', leaf) INTO in_use;
        CONTINUE WHEN NOT in_use;
        EXECUTE format('SELECT EXISTS (SELECT FROM %s WHERE processed_at >= $1)', leaf)
            INTO in_use USING now_at - retention;
        CONTINUE WHEN in_use;
        BEGIN
            EXECUTE format('LOCK TABLE %s IN ACCESS EXCLUSIVE MODE NOWAIT', leaf);
            -- Again under the lock, where every claim is visible.
            EXECUTE format('SELECT EXISTS (SELECT FROM %s WHERE processed_at >= $1)', leaf)
                INTO in_use USING now_at - retention;
            IF NOT in_use THEN
                EXECUTE format('TRUNCATE %s', leaf);
                leaves := leaves + 1;
            END IF;
        EXCEPTION WHEN lock_not_available THEN
            NULL;
        END;
    END LOOP;
    DELETE FROM "postrider".processed_timeless AS p
    WHERE p.ctid = ANY (ARRAY(
        SELECT old.ctid FROM "postrider".processed_timeless AS old
        WHERE old.processed_at < now_at - retention
        ORDER BY old.processed_at LIMIT 10000 FOR UPDATE SKIP LOCKED));
    GET DIAGNOSTICS timeless = ROW_COUNT;
END
$body$;

-- Row security would hide unsettled rows from retention, which would then remove them.
ALTER FUNCTION "postrider".retain(interval) SET row_security = off;
ALTER FUNCTION "postrider".turn_settled(smallint) SET row_security = off;

-- Functions that run in the application's own sessions: where standard_conforming_strings is off a
-- backslash in a plain literal vanishes, and a pattern lets more through. So no plain literal has
-- one. (A SET clause would cost each call; a pattern without a backslash costs nothing.) And
-- retain() reads the gate so that a lost privilege is an error.
DO $body$
DECLARE
    function regprocedure;
    definition text;
BEGIN
    FOR function IN
        SELECT p.oid FROM pg_catalog.pg_proc AS p
        WHERE p.pronamespace = '"postrider"'::regnamespace
          AND p.proname IN ('emit', 'check_event', 'check_header_value', 'retain')
    LOOP
        definition := pg_get_functiondef(function);
        definition := replace(definition, E'\\.', '[.]');
        definition := replace(definition, E'\'^[\\x20-\\x7e]*$\'', '''^[ -~]*$''');
        definition := replace(definition, E'\'[^\\x21-\\x7e]\'', '''[^!-~]''');
        definition := replace(definition, E'\'[\\x01-\\x08\\x0a-\\x1f\\x7f]\'',
                              E'E\'[\\\\x01-\\\\x08\\\\x0a-\\\\x1f\\\\x7f]\'');
        definition := replace(definition,
            'coalesce(pg_sequence_last_value(''"postrider".gate''::regclass), 0)',
            '"postrider".sequence_value(''"postrider".gate''::regclass)');
        EXECUTE definition;
    END LOOP;
END
$body$;

REVOKE ALL ON FUNCTION "postrider".broken_contract(text) FROM PUBLIC;
REVOKE ALL ON FUNCTION "postrider".adopt_rows() FROM PUBLIC;
GRANT EXECUTE ON FUNCTION "postrider".broken_contract(text)
    TO postrider_relay, postrider_operator;
GRANT EXECUTE ON FUNCTION "postrider".adopt_rows() TO postrider_relay;
GRANT SELECT, INSERT, UPDATE ON "postrider".contract TO postrider_relay;
GRANT SELECT ON "postrider".contract TO postrider_operator;
