-- The events that the stream should contain, page by page: rows that the position has passed. A row
-- with a letter counts only when the letter was published, a row without a letter only when the
-- relay's filter takes it. For `postrider audit` and `reconcile`, off the data path. Open the
-- session with ACCOUNTING_SETTINGS. Settled rows stay settled, so pages need no common transaction.
--
-- A stream drops its oldest messages by its limits. Checkpoints say how far the stream was when an
-- event was settled. An event that was settled before the stream reached its present first message
-- may have been dropped. An event that was settled later cannot have been.
--
-- $1 text relay, $2 bigint seq after which the page begins, $3 bigint rows at most,
-- $4 bigint first sequence that the stream has (1: it dropped nothing)
-- Columns: seq int8, event_id uuid (the letter's when there is a letter), is_expected bool (the
--   stream should contain it), may_be_dropped bool
-- Rows: 0 to $3, in the order of seq; fewer only at the end. Index: primary key of each leaf,
--   letter_once. Locks: ACCESS SHARE.
WITH c AS MATERIALIZED (
    SELECT k.snapshot, k.target, k.bookmark FROM "postrider".checkpoint AS k
    WHERE k.relay = $1::text AND k.stream_seq >= $4::bigint - 1
    ORDER BY k.taken_at LIMIT 1
)
SELECT o.seq, coalesce(l.event_id, o.event_id) AS event_id,
       CASE WHEN l.event_id IS NULL THEN o.is_taken
            ELSE coalesce(l.resolution = 'published', false) END AS is_expected,
       $4::bigint > 1 AND (NOT EXISTS (SELECT FROM c)
           OR (SELECT pg_visible_in_snapshot(o.tx, c.snapshot)
                      OR o.seq <= c.bookmark AND pg_visible_in_snapshot(o.tx, c.target)
               FROM c)) AS may_be_dropped
FROM "postrider".position AS p
CROSS JOIN LATERAL (
    SELECT r.seq, r.tx, r.event_id,
           p.filter IS NULL
               OR "postrider".takes(p.filter, r.event_type, r.kind, r.aggregate_type,
                                    r.aggregate_id, r.seq) AS is_taken
    FROM "postrider".outbox AS r
    WHERE r.seq > $2::bigint
      AND (pg_visible_in_snapshot(r.tx, p.snapshot)
           OR r.seq <= p.bookmark AND pg_visible_in_snapshot(r.tx, p.target))
    ORDER BY r.seq LIMIT $3::bigint) AS o
LEFT JOIN LATERAL (
    SELECT e.event_id, e.resolution FROM "postrider".letter AS e
    WHERE e.relay = p.relay AND e.seq = o.seq) AS l ON true
WHERE p.relay = $1::text
ORDER BY o.seq
