-- broken_contract(): every condition of docs/guarantees.md that is violated. `remedy` is repair
-- (repair_contract() repairs it, and rows may have been passed over), wake (the same function
-- repairs it, and nothing was passed over), warn (rows wait, and an operator decides) or refuse (an
-- operator has to act before events flow). The relay calls it at each start and each minute,
-- `postrider check` on demand.
--
-- The function reads catalogs, the positions, the highest seq and the highest transaction number.
-- SECURITY INVOKER: what the calling role may not see is one of the conditions.

CREATE OR REPLACE FUNCTION "postrider".broken_contract(wanted text)
RETURNS TABLE (code text, remedy text, problem text, fix text)
LANGUAGE sql VOLATILE
SET search_path = pg_catalog, pg_temp SET quote_all_identifiers = off
AS $body$
    WITH outbox AS MATERIALIZED (
        SELECT '"postrider".outbox'::regclass::oid AS oid
    ), last AS MATERIALIZED (
        SELECT "postrider".sequence_value('"postrider".outbox_seq_seq'::regclass) AS value
    ), sequence AS MATERIALIZED (
        -- Of the rows only those above the sequence are searched: there are none, unless somebody
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

COMMENT ON FUNCTION "postrider".broken_contract(text)
    IS 'The conditions of the outbox that do not hold.';
REVOKE ALL ON FUNCTION "postrider".broken_contract(text) FROM PUBLIC;
GRANT EXECUTE ON FUNCTION "postrider".broken_contract(text) TO postrider_relay, postrider_operator;
