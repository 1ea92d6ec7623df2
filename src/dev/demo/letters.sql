-- The next letters after the last one that was shown (its id is the parameter), in the order of
-- their ids. Uses the primary key.
SELECT id, state, event_type,
    coalesce(aggregate_type || '/' || aggregate_id, '(no key)') AS key, error_code, error
FROM "postrider".letter
WHERE id > $1::int8
ORDER BY id
LIMIT 20
