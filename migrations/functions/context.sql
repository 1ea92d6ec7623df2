-- context(): transaction-local defaults for the emits that follow: correlation_id, causation_id,
-- actor, source, traceparent, tracestate, headers. A second call adds to the first; null removes a
-- key.

CREATE OR REPLACE FUNCTION "postrider".context(defaults jsonb) RETURNS void
LANGUAGE plpgsql VOLATILE
SET search_path = pg_catalog, pg_temp AS $body$
DECLARE
    now_set jsonb := coalesce(nullif(current_setting('postrider.context', true), ''), '{}');
    headers jsonb := coalesce(defaults -> 'headers', '{}');
    unknown text;
BEGIN
    IF defaults IS NULL OR jsonb_typeof(defaults) <> 'object' THEN
        RAISE EXCEPTION 'the context is not a JSON object'
            USING ERRCODE = '22023', HINT = 'pass an object like {"actor": "alice"}';
    END IF;
    SELECT key INTO unknown FROM jsonb_each(defaults)
    WHERE key NOT IN ('correlation_id', 'causation_id', 'actor', 'source',
                      'traceparent', 'tracestate', 'headers')
       OR key <> 'headers' AND jsonb_typeof(value) NOT IN ('string', 'null')
    LIMIT 1;
    IF FOUND THEN
        RAISE EXCEPTION 'the context cannot hold %: %', to_json(unknown), left((defaults -> unknown)::text, 128)
            USING ERRCODE = '22023',
                  HINT = 'use correlation_id, causation_id, actor, source, traceparent, tracestate (strings) and headers (an object)';
    END IF;
    IF jsonb_typeof(headers) <> 'object' THEN
        PERFORM "postrider".check_headers(headers);
    END IF;
    -- Trace fields travel as headers.
    headers := headers || (SELECT coalesce(jsonb_object_agg(key, value), '{}')
                           FROM jsonb_each(defaults) WHERE key IN ('traceparent', 'tracestate'));
    headers := jsonb_strip_nulls(coalesce(now_set -> 'headers', '{}') || headers);
    PERFORM "postrider".check_headers(headers);
    now_set := jsonb_strip_nulls(now_set || (defaults - '{traceparent,tracestate,headers}'::text[]))
               || jsonb_build_object('headers', headers);
    PERFORM set_config('postrider.context', now_set::text, true);
END
$body$;

CREATE OR REPLACE FUNCTION "postrider".context(defaults text) RETURNS void
LANGUAGE sql VOLATILE
SET search_path = pg_catalog, pg_temp AS $body$ SELECT "postrider".context(defaults::jsonb) $body$;

CREATE OR REPLACE FUNCTION "postrider".context(defaults json) RETURNS void
LANGUAGE sql VOLATILE
SET search_path = pg_catalog, pg_temp AS $body$ SELECT "postrider".context(defaults::jsonb) $body$;

COMMENT ON FUNCTION "postrider".context(jsonb)
    IS 'Sets defaults for the events that this transaction emits.';
COMMENT ON FUNCTION "postrider".context(text)
    IS 'Sets defaults for the events that this transaction emits.';
COMMENT ON FUNCTION "postrider".context(json)
    IS 'Sets defaults for the events that this transaction emits.';
REVOKE ALL ON FUNCTION "postrider".context(jsonb), "postrider".context(text),
    "postrider".context(json) FROM PUBLIC;
GRANT EXECUTE ON FUNCTION "postrider".context(jsonb), "postrider".context(text),
    "postrider".context(json) TO postrider_producer;
