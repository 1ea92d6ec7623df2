-- The events that the stream has to hold, page by page: rows that the position has passed and that
-- have no letter, and those whose letter was published. For `postrider audit` and `reconcile`, off the
-- data path. Open the session with ACCOUNTING_SETTINGS, and one transaction for all pages.
--
-- $1 text relay, $2 bigint seq after which the page begins, $3 bigint rows at most
-- Columns: seq int8, event_id uuid (of a letter: the letter's)
-- Rows: 0 to $3, in the order of seq. Index: primary key of each leaf, letter_once. Locks: ACCESS SHARE.
SELECT o.seq, coalesce(l.event_id, o.event_id) AS event_id
FROM "postrider".position AS p
CROSS JOIN LATERAL (
    SELECT r.seq, r.tx, r.event_id FROM "postrider".outbox AS r
    WHERE r.seq > $2::bigint
      AND (pg_visible_in_snapshot(r.tx, p.snapshot)
           OR r.seq <= p.bookmark AND pg_visible_in_snapshot(r.tx, p.target))
    ORDER BY r.seq LIMIT $3::bigint) AS o
LEFT JOIN LATERAL (
    SELECT e.event_id, e.resolution FROM "postrider".letter AS e
    WHERE e.relay = p.relay AND e.seq = o.seq) AS l ON true
WHERE p.relay = $1::text AND (l.event_id IS NULL OR l.resolution = 'published')
ORDER BY o.seq
