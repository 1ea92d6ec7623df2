-- Measures the unsettled events of a relay, for `status` and the metrics. Off the data path.
--
-- P is the settled snapshot, C the target snapshot. A row is settled when it is visible in P, or
-- when it is visible in C and its seq is at most the bookmark. Of the unsettled rows above the
-- bookmark, most have a transaction number of at least xmax(P); up to the bookmark, of at least
-- xmax(C). The others are of transactions that were open in P or C, and are counted transaction by
-- transaction. Settled rows are read only above the floors.
--
-- $1 text relay, $2 bigint rows to read at most
-- Columns: pending int8 (of the rows read, those that the relay's filter takes: exact while
--   rows_read is below $2), rows_read int8, pending_at_most int8 (an upper bound: seqs drawn and
--   not settled; gaps of rolled back transactions count, late transactions do not),
--   oldest_age_seconds float8 null (of the pending event with the lowest seq, by its occurred_at;
--   null when no event is pending), dead int8 (unresolved dead letters, exact up to $2), held int8
--   (unresolved held letters, exact up to $2), retrying int8 (unresolved retrying letters, exact up
--   to $2), oldest_letter_age_seconds float8 null (of the first retrying or held letter, by its
--   occurred_at)
-- Rows: 1, or 0 when the relay has no position yet.
-- Index: primary key above the fences, outbox_tx_seq for late transactions,
--   letter_unresolved_state.
-- Locks: ACCESS SHARE.
SELECT unsettled.pending, unsettled.rows_read,
       greatest(0, "postrider".sequence_value('"postrider".outbox_seq_seq'::regclass)
                   - greatest(p.floor, p.bookmark)) AS pending_at_most,
       unsettled.oldest_age_seconds,
       (SELECT count(*) FROM (
            SELECT FROM "postrider".letter AS l
            WHERE l.relay = p.relay AND l.resolved_at IS NULL AND l.state = 'dead'
            LIMIT $2::bigint) AS d) AS dead,
       (SELECT count(*) FROM (
            SELECT FROM "postrider".letter AS l
            WHERE l.relay = p.relay AND l.resolved_at IS NULL AND l.state = 'held'
            LIMIT $2::bigint) AS h) AS held,
       (SELECT count(*) FROM (
            SELECT FROM "postrider".letter AS l
            WHERE l.relay = p.relay AND l.resolved_at IS NULL AND l.state = 'retrying'
            LIMIT $2::bigint) AS r) AS retrying,
       (SELECT max(date_part('epoch', clock_timestamp() - w.occurred_at)) FROM (
            (SELECT l.occurred_at FROM "postrider".letter AS l
             WHERE l.relay = p.relay AND l.resolved_at IS NULL AND l.state = 'retrying'
             ORDER BY l.seq LIMIT 1)
            UNION ALL
            (SELECT l.occurred_at FROM "postrider".letter AS l
             WHERE l.relay = p.relay AND l.resolved_at IS NULL AND l.state = 'held'
             ORDER BY l.seq LIMIT 1)) AS w
        WHERE isfinite(w.occurred_at)) AS oldest_letter_age_seconds
FROM "postrider".position AS p
CROSS JOIN LATERAL (
    WITH event AS MATERIALIZED (
        (SELECT o.seq, o.occurred_at, o.event_type, o.kind, o.aggregate_type,
                o.aggregate_id FROM "postrider".outbox AS o
         WHERE o.seq > greatest(p.floor, p.bookmark) AND o.tx >= pg_snapshot_xmax(p.snapshot)
         ORDER BY o.seq LIMIT $2::bigint)
        UNION ALL
        (SELECT o.seq, o.occurred_at, o.event_type, o.kind, o.aggregate_type,
                o.aggregate_id FROM "postrider".outbox AS o
         WHERE o.seq > greatest(p.floor, p.target_floor) AND o.seq <= p.bookmark
           AND o.tx >= pg_snapshot_xmax(p.target)
         ORDER BY o.seq LIMIT $2::bigint)
        UNION ALL
        (SELECT late.seq, late.occurred_at, late.event_type, late.kind, late.aggregate_type,
                late.aggregate_id
         FROM pg_snapshot_xip(p.snapshot) AS x (tx)
         CROSS JOIN LATERAL (
             SELECT l.seq, l.occurred_at, l.event_type, l.kind, l.aggregate_type,
                    l.aggregate_id
             FROM "postrider".outbox AS l
             WHERE l.tx >= x.tx AND l.tx <= x.tx
               AND (l.seq > p.bookmark OR NOT pg_visible_in_snapshot(l.tx, p.target))
             ORDER BY l.tx, l.seq LIMIT $2::bigint) AS late
         LIMIT $2::bigint)
        UNION ALL
        (SELECT late.seq, late.occurred_at, late.event_type, late.kind, late.aggregate_type,
                late.aggregate_id
         FROM pg_snapshot_xip(p.target) AS x (tx)
         CROSS JOIN LATERAL (
             SELECT l.seq, l.occurred_at, l.event_type, l.kind, l.aggregate_type,
                    l.aggregate_id
             FROM "postrider".outbox AS l
             WHERE l.tx >= x.tx AND l.tx <= x.tx AND l.seq > p.floor AND l.seq <= p.bookmark
             ORDER BY l.tx, l.seq LIMIT $2::bigint) AS late
         WHERE x.tx >= pg_snapshot_xmax(p.snapshot)
         LIMIT $2::bigint))
    SELECT (SELECT count(*) FROM event AS e
            WHERE p.filter IS NULL
               OR "postrider".takes(p.filter, e.event_type, e.kind, e.aggregate_type,
                                    e.aggregate_id, e.seq)) AS pending,
           (SELECT count(*) FROM event) AS rows_read,
           (SELECT date_part('epoch', clock_timestamp() - oldest.occurred_at)
            FROM (SELECT e.occurred_at FROM event AS e
                  WHERE p.filter IS NULL
                     OR "postrider".takes(p.filter, e.event_type, e.kind, e.aggregate_type,
                                          e.aggregate_id, e.seq)
                     -- When rows were left unread, a pending one among them may be as old as this
                     -- row.
                     OR (SELECT count(*) FROM event) >= $2::bigint
                  ORDER BY e.seq LIMIT 1) AS oldest
            WHERE isfinite(oldest.occurred_at)) AS oldest_age_seconds) AS unsettled
WHERE p.relay = $1::text
