-- repair_contract(): repairs what broken_contract() calls repair or wake, and puts every relay back
-- to the last position at which every condition held, so that rows that were passed over since are
-- read. Rows whose number another row or its letter has get a new one.
--
-- ALTER SEQUENCE waits for all transactions that have drawn a number, for 100 ms at most, and makes
-- every session forget the numbers that it has cached. Who inserts waits until the repair is
-- committed: where the sequence went back that is one reading of the whole outbox.
--
-- Returns the number of rows that were given a new number; the relays that read again from that
-- position; and the relays whose position is not recorded or too old. For these only rows that come
-- from now on are certain, and `postrider reconcile` finds the rest. SECURITY DEFINER: the relay's
-- role owns nothing.

CREATE OR REPLACE FUNCTION "postrider".repair_contract(
    OUT renumbered bigint, OUT put_back text[], OUT uncertain text[])
LANGUAGE plpgsql VOLATILE SECURITY DEFINER
SET search_path = pg_catalog, pg_temp SET row_security = off SET lock_timeout = '100ms'
AS $body$
DECLARE
    -- As many ids as the relay remembers of a stream: it could not distinguish more from new ones.
    reread_max CONSTANT bigint := 1000000;
    sequence CONSTANT regclass := '"postrider".outbox_seq_seq';
    cluster_id CONSTANT bigint := (SELECT system_identifier FROM pg_control_system());
    went_back boolean;
    known bigint;
    base record;
    relay record;
    leaf record;
    source record;
    number bigint;
    relays text[];
    collides boolean;
    low bigint;
    safe boolean;
    has_cache boolean;
    top record;
BEGIN
    renumbered := 0; put_back := '{}'; uncertain := '{}';
    IF current_setting('transaction_isolation') <> 'read committed' THEN
        RAISE EXCEPTION 'repair_contract() runs under READ COMMITTED only'
            USING ERRCODE = '25001', HINT = 'call it outside of other transactions';
    END IF;

    FOR leaf IN SELECT format('"postrider".outbox_%s', n)::regclass AS name FROM generate_series(4, 7) AS n
                WHERE NOT EXISTS (
                    SELECT FROM pg_trigger AS t
                    WHERE t.tgrelid = format('"postrider".outbox_%s', n)::regclass
                      AND t.tgname = 'outbox_wake' AND t.tgenabled = 'A')
    LOOP
        BEGIN
            EXECUTE format('CREATE OR REPLACE TRIGGER outbox_wake BEFORE INSERT ON %s '
                           'FOR EACH ROW EXECUTE FUNCTION "postrider".wake()', leaf.name);
            EXECUTE format('ALTER TABLE %s ENABLE ALWAYS TRIGGER outbox_wake', leaf.name);
        EXCEPTION WHEN lock_not_available THEN
            NULL;  -- The next check comes in a minute.
        END;
    END LOOP;

    PERFORM FROM "postrider".position AS p ORDER BY p.relay FOR UPDATE;
    IF NOT EXISTS (SELECT FROM "postrider".position AS p
                   CROSS JOIN LATERAL "postrider".broken_contract(p.relay) AS b
                   WHERE p.system_id = cluster_id AND b.remedy = 'repair') THEN
        RETURN;
    END IF;

    -- The relays that went back have to be determined before the sequence is changed.
    known := "postrider".sequence_value(sequence);
    went_back := EXISTS (SELECT FROM "postrider".outbox AS o WHERE o.seq > known)
        OR known < greatest(
            (SELECT max(p.drawn) FROM "postrider".position AS p WHERE p.system_id = cluster_id),
            (SELECT max(k.drawn) FROM "postrider".contract AS k));
    has_cache := (SELECT s.seqcache > 1 FROM pg_sequence AS s WHERE s.seqrelid = sequence);
    BEGIN
        IF (SELECT a.attidentity = 'd' FROM pg_attribute AS a
            WHERE a.attrelid = '"postrider".outbox'::regclass AND a.attname = 'seq') THEN
            ALTER TABLE "postrider".outbox ALTER COLUMN seq SET GENERATED ALWAYS;
        END IF;
        ALTER SEQUENCE "postrider".outbox_seq_seq INCREMENT 1 NO CYCLE NO MAXVALUE CACHE 1;
    EXCEPTION WHEN lock_not_available THEN
        RAISE EXCEPTION 'the sequence of outbox.seq cannot be repaired while transactions that have inserted events are open'
            USING ERRCODE = '55P03', HINT = 'end them; it is tried again';
    END;
    -- From here on no transaction has a number that is not visible.
    SELECT greatest("postrider".sequence_value(sequence),
                    (SELECT max(p.drawn) FROM "postrider".position AS p WHERE p.system_id = cluster_id),
                    (SELECT max(k.drawn) FROM "postrider".contract AS k),
                    (SELECT max(l.seq) FROM "postrider".letter AS l),
                    (SELECT o.seq FROM "postrider".outbox AS o ORDER BY o.seq DESC LIMIT 1), 0)
    INTO known;
    EXECUTE format('ALTER SEQUENCE "postrider".outbox_seq_seq RESTART WITH %s', known + 1);
    -- A sequence that has given no number yet counts as being at its floor.
    PERFORM setval(sequence, known + 1);

    -- The newest position at which every condition held.
    SELECT coalesce(k.snapshot, p.snapshot) AS snapshot, coalesce(k.floor, p.floor) AS floor
    INTO base
    FROM "postrider".position AS p LEFT JOIN "postrider".contract AS k USING (relay)
    WHERE p.system_id = cluster_id
    ORDER BY pg_snapshot_xmax(coalesce(k.snapshot, p.snapshot)) DESC LIMIT 1;

    -- It may also have gone back and come on again. With a cache low numbers are no sign of that.
    went_back := went_back OR NOT has_cache AND EXISTS (
        SELECT FROM "postrider".outbox AS o
        WHERE o.tx >= pg_snapshot_xmax(base.snapshot) AND o.seq <= base.floor);
    IF went_back THEN
        relays := ARRAY(SELECT p.relay FROM "postrider".position AS p);
        SELECT o.tx, o.seq INTO top FROM "postrider".outbox AS o ORDER BY o.seq DESC, o.tx DESC LIMIT 1;
        collides := EXISTS (
            SELECT FROM "postrider".outbox AS o
            WHERE o.tx >= pg_snapshot_xmax(base.snapshot)
              AND (EXISTS (SELECT FROM "postrider".outbox AS w
                           WHERE w.seq = o.seq AND w.slot <> o.slot AND w.tx <= o.tx)
                   OR EXISTS (SELECT FROM "postrider".letter AS l
                              WHERE l.relay = ANY (relays) AND l.seq = o.seq
                                AND l.event_id <> o.event_id
                                AND l.replaces IS DISTINCT FROM o.event_id)));
        -- A row that was published before keeps its number, by which the stream is searched. Of
        -- those that came later, which began after the highest number was drawn and have a lower
        -- one, all get another when one has a number that something else has: so they stay in their
        -- order.
        FOR source IN
            SELECT o.seq, o.slot, o.event_id
            FROM "postrider".outbox AS o
            WHERE collides AND o.tx >= pg_snapshot_xmax(base.snapshot)
              AND (o.tx > top.tx AND o.seq < top.seq
                   OR EXISTS (SELECT FROM "postrider".outbox AS w
                              WHERE w.seq = o.seq AND w.slot <> o.slot
                                AND (w.tx, w.slot) < (o.tx, o.slot)))
            ORDER BY o.seq, o.slot
        LOOP
            UPDATE "postrider".outbox AS o SET seq = DEFAULT
            WHERE o.seq = source.seq AND o.slot = source.slot RETURNING o.seq INTO number;
            renumbered := renumbered + 1;
            UPDATE "postrider".letter AS l SET seq = number
            WHERE l.relay = ANY (relays) AND l.seq = source.seq
              AND source.event_id IN (l.event_id, l.replaces);
        END LOOP;
        -- Two rows of one number are one to whoever pages by it.
        FOR source IN
            SELECT d.seq, d.slot, d.event_id FROM (
                SELECT o.seq, o.slot, o.event_id,
                       row_number() OVER (PARTITION BY o.seq ORDER BY o.tx, o.occurred_at, o.slot) AS n
                FROM "postrider".outbox AS o) AS d
            WHERE d.n > 1 ORDER BY d.seq
        LOOP
            UPDATE "postrider".outbox AS o SET seq = DEFAULT
            WHERE o.seq = source.seq AND o.slot = source.slot RETURNING o.seq INTO number;
            UPDATE "postrider".letter AS l SET seq = number
            WHERE l.relay = ANY (relays) AND l.seq = source.seq
              AND source.event_id IN (l.event_id, l.replaces);
            renumbered := renumbered + 1;
        END LOOP;
    END IF;
    known := "postrider".sequence_value(sequence);

    FOR relay IN
        SELECT p.relay AS name, p.snapshot, p.floor, p.target_floor, p.stream_created_ns, p.stream_floor,
               k.snapshot AS sound, k.stream_created_ns AS sound_stream, k.stream_floor AS sound_floor
        FROM "postrider".position AS p LEFT JOIN "postrider".contract AS k USING (relay)
        WHERE p.system_id = cluster_id
    LOOP
        safe := relay.sound IS NOT NULL;
        IF safe AND (pg_snapshot_xmax(relay.sound) > pg_snapshot_xmax(relay.snapshot)
                     OR EXISTS (SELECT FROM pg_snapshot_xip(relay.snapshot) AS x (tx)
                                WHERE pg_visible_in_snapshot(x.tx, relay.sound))) THEN
            -- A healing has put the relay back behind that: so it stays.
            relay.sound := relay.snapshot;
        END IF;
        IF safe THEN
            safe := (SELECT count(*) FROM (
                SELECT FROM "postrider".outbox AS o
                WHERE o.tx >= pg_snapshot_xmax(relay.sound) AND o.tx < pg_snapshot_xmax(relay.snapshot)
                LIMIT reread_max + 1) AS again) <= reread_max;
        END IF;
        IF NOT safe THEN
            relay.sound := relay.snapshot;
        END IF;
        SELECT coalesce(min(o.seq) - 1, known) INTO low
        FROM "postrider".outbox AS o WHERE o.tx >= pg_snapshot_xmax(relay.sound);
        UPDATE "postrider".position AS p
        SET snapshot = relay.sound, floor = least(p.floor, low),
            target = CASE WHEN safe THEN relay.sound ELSE p.target END,
            target_floor = least(p.floor, p.target_floor, low),
            bookmark = CASE WHEN safe THEN 0 ELSE p.bookmark END,
            drawn = known,
            -- Whatever is there may have been handed over under a lower number.
            sent_to = greatest(p.sent_to, known),
            stream_floor = CASE WHEN relay.sound_stream IS NOT DISTINCT FROM p.stream_created_ns
                                THEN least(p.stream_floor, coalesce(relay.sound_floor, p.stream_floor))
                                ELSE 0 END,
            healing_since = CASE WHEN safe THEN clock_timestamp() ELSE p.healing_since END,
            term = p.term + 1, updated_at = clock_timestamp()
        WHERE p.relay = relay.name;
        UPDATE "postrider".contract AS k
        SET snapshot = relay.sound, floor = least(k.floor, low), drawn = known,
            sequence_file = pg_relation_filenode(sequence)
        WHERE k.relay = relay.name;
        -- A healing must not pass them over either.
        UPDATE "postrider".checkpoint AS c
        SET floor = least(c.floor, low), target_floor = least(c.target_floor, low)
        WHERE c.relay = relay.name AND greatest(c.floor, c.target_floor) > low;
        IF safe THEN
            put_back := put_back || relay.name;
        ELSE
            uncertain := uncertain || relay.name;
        END IF;
    END LOOP;
END
$body$;

COMMENT ON FUNCTION "postrider".repair_contract()
    IS 'Repairs the conditions of the outbox that do not hold.';
REVOKE ALL ON FUNCTION "postrider".repair_contract() FROM PUBLIC;
GRANT EXECUTE ON FUNCTION "postrider".repair_contract() TO postrider_relay;
