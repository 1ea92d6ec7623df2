-- Emits one event for each element of the arrays, in their order, with one call of emit each.
SELECT "postrider".emit(
    event_type => event_type, payload => payload::json, headers => headers::jsonb,
    aggregate_type => aggregate_type, aggregate_id => aggregate_id,
    event_version => event_version, aggregate_version => aggregate_version,
    event_id => event_id, correlation_id => $10::text, actor => actor
)
FROM unnest(
    $1::uuid[], $2::text[], $3::int4[], $4::text[], $5::text[], $6::int8[], $7::text[], $8::text[],
    $9::text[]
) AS event (
    event_id, event_type, event_version, aggregate_type, aggregate_id, aggregate_version, payload,
    headers, actor
)
