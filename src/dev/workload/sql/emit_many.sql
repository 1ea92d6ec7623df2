-- Emits all events of a JSON array by one call.
SELECT "postrider".emit_many($1::text::jsonb)
