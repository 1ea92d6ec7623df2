-- Pays an order, and adds its event by a plain INSERT.
WITH paid AS (UPDATE orders SET paid = true WHERE id = $1 RETURNING id)
INSERT INTO "postrider".outbox (
    event_type, aggregate_type, aggregate_id, aggregate_version, payload
)
SELECT 'order.paid', 'order', id::text, 2, json_build_object('order', id) FROM paid
