-- Places an order and emits its event: the business row and the event in one transaction.
WITH placed AS (INSERT INTO orders (total) VALUES ($1::int4) RETURNING id, total)
SELECT id, "postrider".emit(
    event_type => 'order.placed',
    payload => json_build_object('order', id, 'total', total),
    aggregate_type => 'order', aggregate_id => id::text, aggregate_version => 1
)
FROM placed
