-- Finds the undecided events of this outbox among the messages of a stream scan: rows that the
-- relay takes and has not settled, and unresolved letters. Several outboxes may share a stream, so
-- an id alone proves nothing. A settled event is never sent again.
--
-- $1 text relay, $2 bigint[] seq, $3 uuid[] event id (of the same length)
-- Columns: place int8 (in the arrays, from 1), aggregate_type text null, aggregate_id text null
-- Rows: 0 to one a message, two for a letter whose row is not settled. Index: primary key of each
--   leaf and letter_once, one probe of each a message. Locks: ACCESS SHARE.
SELECT f.place, o.aggregate_type, o.aggregate_id
FROM "postrider".position AS p
CROSS JOIN unnest($2::bigint[], $3::uuid[]) WITH ORDINALITY AS f (seq, event_id, place)
CROSS JOIN LATERAL (
    SELECT r.tx, r.aggregate_type, r.aggregate_id, r.event_type, r.kind, r.seq
    FROM "postrider".outbox AS r
    WHERE r.seq >= f.seq AND r.seq <= f.seq AND r.event_id = f.event_id
    OFFSET 0) AS o
WHERE p.relay = $1::text
  AND NOT pg_visible_in_snapshot(o.tx, p.snapshot)
  AND NOT (f.seq <= p.bookmark AND pg_visible_in_snapshot(o.tx, p.target))
  AND (p.filter IS NULL
       OR "postrider".takes(p.filter, o.event_type, o.kind, o.aggregate_type, o.aggregate_id, o.seq))
UNION ALL
SELECT f.place, l.aggregate_type, l.aggregate_id
FROM unnest($2::bigint[], $3::uuid[]) WITH ORDINALITY AS f (seq, event_id, place)
CROSS JOIN LATERAL (
    SELECT e.event_id, e.resolved_at, e.aggregate_type, e.aggregate_id FROM "postrider".letter AS e
    WHERE e.relay = $1::text AND e.seq >= f.seq AND e.seq <= f.seq
    ORDER BY e.relay, e.seq LIMIT 1) AS l
WHERE l.event_id = f.event_id AND l.resolved_at IS NULL
