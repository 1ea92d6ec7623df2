-- The letters that came after one that was seen, in their order; by the primary key.
SELECT id, state, event_type,
    coalesce(aggregate_type || '/' || aggregate_id, '(no key)') AS key, error_code, error
FROM "postrider".letter
WHERE id > $1::int8
ORDER BY id
LIMIT 20
