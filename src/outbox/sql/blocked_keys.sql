-- The keys whose later events have to wait, because a letter of theirs is not resolved.
--
-- A key with held letters has one that holds it dead, or one that the relay has still to look at,
-- whatever became of that: so a million held letters are not read here.
--
-- $1 text relay
-- Columns: aggregate_type text, aggregate_id text
-- Rows: one a blocked key. Index: letter_holding, letter_due. Locks: ACCESS SHARE.
SELECT DISTINCT l.aggregate_type, l.aggregate_id
FROM ((SELECT d.aggregate_type, d.aggregate_id FROM "postrider".letter AS d
       WHERE d.relay = $1::text AND d.resolved_at IS NULL AND d.state = 'dead' AND d.holds)
      UNION ALL
      (SELECT t.aggregate_type, t.aggregate_id FROM "postrider".letter AS t
       WHERE t.relay = $1::text AND t.next_attempt_at IS NOT NULL)) AS l
WHERE l.aggregate_type <> '' AND l.aggregate_id <> ''
