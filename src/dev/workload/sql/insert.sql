-- Inserts one event for each element of the arrays, in their order, by a plain INSERT.
INSERT INTO "postrider".outbox (
    event_id, event_type, event_version, aggregate_type, aggregate_id, aggregate_version, payload,
    headers, actor, correlation_id
)
SELECT
    event_id, event_type, event_version, aggregate_type, aggregate_id, aggregate_version,
    payload::json, headers::jsonb, actor, $10::text
FROM unnest(
    $1::uuid[], $2::text[], $3::int4[], $4::text[], $5::text[], $6::int8[], $7::text[], $8::text[],
    $9::text[]
) AS event (
    event_id, event_type, event_version, aggregate_type, aggregate_id, aggregate_version, payload,
    headers, actor
)
