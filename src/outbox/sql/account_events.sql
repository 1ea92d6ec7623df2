-- Counts of all committed rows and all letters, at one moment, for `postrider audit`. Off the data
-- path: it reads the whole outbox. Open the session with ACCOUNTING_SETTINGS.
--
-- A row is settled when it is visible in the position's settled snapshot. It is settled too when it
-- is visible in the target snapshot and its seq is at most the bookmark. Before the relay's first
-- start no row is settled.
--
-- $1 text relay
-- Columns: state text null, resolution text null (of the letter; both null: the row has no letter),
--   has_row bool (false: retention has deleted the letter's row), is_settled bool (of the row;
--   false without a row), is_filtered bool (the relay's present filter leaves the row out), count
--   int8, payloads_lost int8 (unresolved letters whose payload had stayed in a row that is gone),
--   strangers int8 (letters that were never edited and whose row now has another event id)
-- Rows: one for each combination of the first five columns that occurs. Index: none, it reads
--   everything once. Locks: ACCESS SHARE.
SELECT l.state, l.resolution, o.seq IS NOT NULL AS has_row,
       coalesce(o.is_settled, false) AS is_settled, coalesce(o.is_filtered, false) AS is_filtered,
       count(*) AS count,
       count(*) FILTER (WHERE l.payload_omitted AND l.resolved_at IS NULL AND o.seq IS NULL)
           AS payloads_lost,
       count(*) FILTER (WHERE l.replaces IS NULL AND l.event_id <> o.event_id) AS strangers
FROM (
    SELECT r.seq, r.slot, r.event_id,
           pg_visible_in_snapshot(r.tx, p.snapshot)
               OR r.seq <= p.bookmark AND pg_visible_in_snapshot(r.tx, p.target) AS is_settled,
           NOT (p.filter IS NULL
                OR "postrider".takes(p.filter, r.event_type, r.kind, r.aggregate_type,
                                     r.aggregate_id, r.seq))
               AS is_filtered
    FROM "postrider".outbox AS r
    CROSS JOIN (
        SELECT k.snapshot, k.target, k.bookmark, k.filter
        FROM "postrider".position AS k WHERE k.relay = $1::text
        UNION ALL
        SELECT '3:3:'::pg_snapshot, '3:3:'::pg_snapshot, 0, NULL
        WHERE NOT EXISTS (SELECT FROM "postrider".position AS k WHERE k.relay = $1::text)) AS p
    ) AS o
FULL JOIN (
    SELECT e.seq, e.slot, e.event_id, e.state, e.resolution, e.resolved_at, e.payload_omitted,
           e.replaces
    FROM "postrider".letter AS e WHERE e.relay = $1::text) AS l
    ON l.seq = o.seq AND l.slot = o.slot
GROUP BY 1, 2, 3, 4, 5
ORDER BY 1, 2, 3, 4, 5
