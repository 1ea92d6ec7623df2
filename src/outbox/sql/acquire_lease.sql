-- Acquires the lease when it is free: creates the position when missing, increases the term, and
-- returns the position. Run read_lease.sql first, because this statement locks the position's row
-- also when it returns no row.
--
-- The lease is free when it was released, has expired or belongs to this process. It is also free
-- when its term is $5: the caller has found that the session of that term's leader has ended.
--
-- A new position has settled nothing: every row of the outbox will be published. A row with a
-- transaction number that this cluster has not reached comes from another cluster. Then the new
-- position gets system_id 0, as for a database that was restored into another cluster.
--
-- $1 text relay, $2 text holder, $3 uuid instance, $4 float8 length of the lease in seconds,
-- $5 bigint null term whose session has ended (null: none), $6 boolean whether the session is the
-- leader's own, and not lent by a pooler, $7 text null process
-- Columns: term int8 (of the new leader), snapshot text, floor int8, target text, target_floor
--   int8, bookmark int8, fence int8 (floor of every snapshot taken from now on), stream_name text
--   null, sent_to int8 null (no earlier leader handed over a row with a higher seq),
--   stream_created_ns int8 null, published int8 (rows settled as published), stream_seq int8,
--   stream_event_id uuid null, stream_floor int8, healing bool (letters may belong to rows that the
--   position has not passed), system_id int8 (of the cluster in which the position was made),
--   previous_holder text null, previous_update timestamptz null, cluster_id int8 (of this server's
--   cluster: when it differs from system_id, stop), in_recovery bool (whether this server is in
--   recovery), notifies bool (false: the server allows two-phase commit, so writers send no wake-up
--   and the relay has to poll), durable text (sets synchronous_commit to local, because a term has
--   to survive a crash of the server)
-- Rows: 1, or 0 when another instance leads. Index: primary key; the one on tx of each leaf.
-- Locks: the position's row.
WITH previous AS MATERIALIZED (
    SELECT p.holder, p.updated_at FROM "postrider".position AS p WHERE p.relay = $1::text
), here AS MATERIALIZED (
    SELECT (SELECT system_identifier FROM pg_control_system()) AS cluster_id,
           "postrider".sequence_value('"postrider".outbox_seq_seq'::regclass) AS fence
), taken AS (
    INSERT INTO "postrider".position AS p (relay, term, holder, instance, lease_until, process,
        backend_pid, backend_start, server_start, system_id)
    SELECT $1::text, 1, $2::text, $3::uuid, clock_timestamp() + $4::float8 * interval '1 second', $7::text,
           own.pid, own.backend_start, pg_postmaster_start_time(), CASE WHEN EXISTS (
        SELECT FROM "postrider".outbox AS o
        WHERE o.tx >= pg_snapshot_xmax(pg_current_snapshot())
    ) THEN 0 ELSE here.cluster_id END
    FROM here
    LEFT JOIN LATERAL pg_stat_get_activity(pg_backend_pid()) AS own ON $6::boolean
    ON CONFLICT (relay) DO UPDATE
        SET term = p.term + 1, holder = excluded.holder, instance = excluded.instance,
            lease_until = clock_timestamp() + $4::float8 * interval '1 second',
            process = excluded.process, backend_pid = excluded.backend_pid, backend_start = excluded.backend_start,
            server_start = excluded.server_start, acquired_at = clock_timestamp()
        WHERE p.lease_until IS NULL OR p.lease_until <= clock_timestamp()
           OR p.instance = excluded.instance OR p.term = $5::bigint
    RETURNING p.*
)
SELECT taken.term, taken.snapshot::text AS snapshot, taken.floor, taken.target::text AS target,
       taken.target_floor, taken.bookmark, here.fence, taken.sent_to, taken.stream_name,
       taken.stream_created_ns, taken.published, taken.stream_seq, taken.stream_event_id, taken.stream_floor,
       taken.healing_since IS NOT NULL AS healing, taken.system_id, previous.holder AS previous_holder,
       previous.updated_at AS previous_update, here.cluster_id,
       pg_is_in_recovery() AS in_recovery,
       current_setting('max_prepared_transactions') = '0'
           OR coalesce(current_setting('postrider.wake', true), '') = 'always' AS notifies,
       set_config('synchronous_commit', 'local', true) AS durable
FROM taken CROSS JOIN here LEFT JOIN previous ON true
