-- Takes the position: creates it when missing, raises the term, and tells where we are.
-- Run it alone (its own transaction), holding the advisory lock of lock.sql.
--
-- A new position has settled nothing: every row that the outbox holds will be published. Rows with a
-- transaction number that this cluster has not come to are from another one: then it is made as one that
-- was restored (system_id 0).
--
-- $1 text relay, $2 text holder
-- Columns: term int8 (ours), snapshot text, floor int8, target text, target_floor int8,
--   bookmark int8, fence int8 (floor of every snapshot taken from now on), stream_name text null,
--   stream_created text null, stream_seq int8, stream_event_id uuid null, stream_floor int8,
--   healing bool (letters may belong to rows that the position has not passed), system_id int8 (stored), previous_holder text null,
--   previous_update timestamptz null,
--   cluster_id int8 (of this server: when it differs from system_id, stop),
--   in_recovery bool (a standby would have failed), notifies bool (false: the server allows
--   two-phase commit, so writers send no wake-up and the relay has to poll)
-- Rows: exactly one. Index: primary key; that on tx of each leaf. Locks: that row.
WITH previous AS MATERIALIZED (
    SELECT p.holder, p.updated_at FROM "postrider".position AS p WHERE p.relay = $1::text
), here AS MATERIALIZED (
    SELECT (SELECT system_identifier FROM pg_control_system()) AS cluster_id,
           coalesce(pg_sequence_last_value('"postrider".outbox_seq_seq'::regclass), 0) AS fence
), taken AS (
    INSERT INTO "postrider".position AS p (relay, term, holder, system_id)
    SELECT $1::text, 1, $2::text, CASE WHEN EXISTS (
        SELECT FROM "postrider".outbox AS o
        WHERE o.tx >= pg_snapshot_xmax(pg_current_snapshot())
    ) THEN 0 ELSE here.cluster_id END FROM here
    ON CONFLICT (relay) DO UPDATE
        SET term = p.term + 1, holder = excluded.holder, acquired_at = clock_timestamp()
    RETURNING p.*
)
SELECT taken.term, taken.snapshot::text AS snapshot, taken.floor, taken.target::text AS target,
       taken.target_floor, taken.bookmark, here.fence, taken.stream_name, taken.stream_created,
       taken.stream_seq, taken.stream_event_id, taken.stream_floor,
       taken.healing_since IS NOT NULL AS healing, taken.system_id, previous.holder AS previous_holder,
       previous.updated_at AS previous_update, here.cluster_id,
       pg_is_in_recovery() AS in_recovery,
       current_setting('max_prepared_transactions') = '0'
           OR coalesce(current_setting('postrider.wake', true), '') = 'always' AS notifies
FROM taken CROSS JOIN here LEFT JOIN previous ON true
