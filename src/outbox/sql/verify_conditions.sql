-- Verifies the conditions that the relay's reading of the outbox relies on. Records the position,
-- unless a condition with remedy repair or refuse does not hold. When such a condition breaks
-- later, the relay reads again from the recorded position (functions/broken_contract.sql).
--
-- $1 text relay
-- Columns: code text, remedy text (repair: call repair_contract.sql, rows may have been passed
--   over; wake: call it too, no row was passed over; warn: an operator should know; refuse: an
--   operator has to act), problem text, fix text
-- Rows: one for each condition that does not hold. Index: primary keys; catalogs. Locks: the
--   relay's row of contract.
WITH broken AS MATERIALIZED (
    SELECT b.code, b.remedy, b.problem, b.fix FROM "postrider".broken_contract($1::text) AS b
), noted AS (
    INSERT INTO "postrider".contract AS k
        (relay, snapshot, floor, stream_created_ns, stream_floor, sequence_file, drawn)
    SELECT p.relay, p.snapshot, p.floor, p.stream_created_ns, p.stream_floor,
           pg_relation_filenode('"postrider".outbox_seq_seq'::regclass),
           "postrider".sequence_value('"postrider".outbox_seq_seq'::regclass)
    FROM "postrider".position AS p
    WHERE p.relay = $1::text AND NOT EXISTS (SELECT FROM broken WHERE broken.remedy IN ('repair', 'refuse'))
    ON CONFLICT (relay) DO UPDATE
    SET verified_at = excluded.verified_at,
        snapshot = excluded.snapshot, floor = excluded.floor,
        stream_created_ns = excluded.stream_created_ns, stream_floor = excluded.stream_floor,
        sequence_file = excluded.sequence_file, drawn = excluded.drawn
)
SELECT broken.code, broken.remedy, broken.problem, broken.fix FROM broken
