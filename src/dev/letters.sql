-- The ids of the unresolved dead letters, and of the events that wait behind them. One row.
SELECT
    coalesce(array_agg(event_id) FILTER (WHERE state = 'dead'), '{}'),
    coalesce(array_agg(event_id) FILTER (WHERE state <> 'dead'), '{}')
FROM "postrider".letter
WHERE resolved_at IS NULL
