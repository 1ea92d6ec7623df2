-- The rows of one key that are in the outbox, taken by the relay's filter and not settled by the
-- position yet. There is no index by key, so the number of rows that are read has a bound. The
-- query for unsettled rows is the same as in measure_depth.sql.
--
-- $1 text relay, $2 text aggregate type, $3 text aggregate id, $4 bigint rows to read at most
-- Columns: pending int8 (of this key), oldest_age_seconds float8 null (of the pending row with the
--   lowest seq), rows_read int8 (of any key: when it reaches $4 there may be more)
-- Rows: exactly one; before the relay's first start no row is settled. Index: primary key above the
--   floors, outbox_tx_seq for late transactions. Locks: ACCESS SHARE.
SELECT unsettled.pending, unsettled.oldest_age_seconds, unsettled.rows_read
FROM (
    SELECT k.snapshot, k.floor, k.target, k.target_floor, k.bookmark, k.filter
    FROM "postrider".position AS k WHERE k.relay = $1::text
    UNION ALL
    SELECT '3:3:'::pg_snapshot, 0, '3:3:'::pg_snapshot, 0, 0, NULL
    WHERE NOT EXISTS (SELECT FROM "postrider".position AS k WHERE k.relay = $1::text)) AS p
CROSS JOIN LATERAL (
    WITH event AS MATERIALIZED (
        (SELECT o.seq, o.occurred_at, o.event_type, o.kind, o.aggregate_type, o.aggregate_id
         FROM "postrider".outbox AS o
         WHERE o.seq > greatest(p.floor, p.bookmark) AND o.tx >= pg_snapshot_xmax(p.snapshot)
         ORDER BY o.seq LIMIT $4::bigint)
        UNION ALL
        (SELECT o.seq, o.occurred_at, o.event_type, o.kind, o.aggregate_type, o.aggregate_id
         FROM "postrider".outbox AS o
         WHERE o.seq > greatest(p.floor, p.target_floor) AND o.seq <= p.bookmark
           AND o.tx >= pg_snapshot_xmax(p.target)
         ORDER BY o.seq LIMIT $4::bigint)
        UNION ALL
        (SELECT late.seq, late.occurred_at, late.event_type, late.kind, late.aggregate_type,
                late.aggregate_id
         FROM pg_snapshot_xip(p.snapshot) AS x (tx)
         CROSS JOIN LATERAL (
             SELECT l.seq, l.occurred_at, l.event_type, l.kind, l.aggregate_type, l.aggregate_id
             FROM "postrider".outbox AS l
             WHERE l.tx >= x.tx AND l.tx <= x.tx
               AND (l.seq > p.bookmark OR NOT pg_visible_in_snapshot(l.tx, p.target))
             ORDER BY l.tx, l.seq LIMIT $4::bigint) AS late
         LIMIT $4::bigint)
        UNION ALL
        (SELECT late.seq, late.occurred_at, late.event_type, late.kind, late.aggregate_type,
                late.aggregate_id
         FROM pg_snapshot_xip(p.target) AS x (tx)
         CROSS JOIN LATERAL (
             SELECT l.seq, l.occurred_at, l.event_type, l.kind, l.aggregate_type, l.aggregate_id
             FROM "postrider".outbox AS l
             WHERE l.tx >= x.tx AND l.tx <= x.tx AND l.seq > p.floor AND l.seq <= p.bookmark
             ORDER BY l.tx, l.seq LIMIT $4::bigint) AS late
         WHERE x.tx >= pg_snapshot_xmax(p.snapshot)
         LIMIT $4::bigint)
    ), of_key AS MATERIALIZED (
        SELECT e.seq, e.occurred_at FROM event AS e
        WHERE e.aggregate_type = $2::text AND e.aggregate_id = $3::text
          AND (p.filter IS NULL
               OR "postrider".takes(p.filter, e.event_type, e.kind, e.aggregate_type,
                                    e.aggregate_id, e.seq)))
    SELECT (SELECT count(*) FROM of_key) AS pending,
           (SELECT count(*) FROM event) AS rows_read,
           (SELECT date_part('epoch', clock_timestamp() - oldest.occurred_at)
            FROM (SELECT k.occurred_at FROM of_key AS k ORDER BY k.seq LIMIT 1) AS oldest
            WHERE isfinite(oldest.occurred_at)) AS oldest_age_seconds) AS unsettled
