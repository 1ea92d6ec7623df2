-- The event ids of the unresolved dead letters, and of all other unresolved letters. One row.
SELECT
    coalesce(array_agg(event_id) FILTER (WHERE state = 'dead'), '{}'),
    coalesce(array_agg(event_id) FILTER (WHERE state <> 'dead'), '{}')
FROM "postrider".letter
WHERE resolved_at IS NULL
