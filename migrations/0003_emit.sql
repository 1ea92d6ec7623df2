-- The functions an application calls to add events: emit, emit_binary, emit_many, context.
--
-- Why: they refuse at the insert, with SQLSTATE 22023 and a text that says what to do, what could
-- never be published, and they fill in what middleware knows (trace, actor, correlation). A plain
-- INSERT works too; what is wrong with it shows up later, as a dead letter.
--
-- Locks: only objects that this file creates.

SET LOCAL lock_timeout = '5s';

CREATE FUNCTION "postrider".check_header_value(name text, value text) RETURNS boolean
LANGUAGE plpgsql IMMUTABLE AS $body$
BEGIN
    IF octet_length(value) > 4096 THEN
        RAISE EXCEPTION 'header "%" has a value of % bytes', name, octet_length(value)
            USING ERRCODE = '22023',
                  HINT = 'keep each value within 4096 bytes; large data belongs in the payload';
    ELSIF value ~ '[\x01-\x08\x0a-\x1f\x7f]' THEN
        RAISE EXCEPTION 'header "%" has a control character in its value', name
            USING ERRCODE = '22023',
                  HINT = 'remove line breaks and control characters; a tab is allowed';
    END IF;
    RETURN true;
END
$body$;

CREATE FUNCTION "postrider".check_headers(headers jsonb) RETURNS void
LANGUAGE plpgsql STABLE AS $body$
DECLARE
    name text;
    value jsonb;
    item text;
    is_valid boolean;
    count integer := 0;
    bytes bigint := 0;
BEGIN
    IF jsonb_typeof(headers) <> 'object' THEN
        RAISE EXCEPTION 'headers are a JSON %, not an object', jsonb_typeof(headers)
            USING ERRCODE = '22023', HINT = 'pass headers like {"tenant": "acme"}';
    END IF;
    FOR name, value IN SELECT * FROM jsonb_each(headers) LOOP
        -- Lengths are compared, not matched: a regular expression with a bound is slow.
        IF name !~ '^[A-Za-z0-9!#$%&''*+.^_`|~-]+$' OR octet_length(name) > 128 THEN
            RAISE EXCEPTION 'header name % cannot be sent', to_json(left(name, 128))
                USING ERRCODE = '22023',
                      HINT = 'use 1 to 128 letters, digits or any of !#$%&''*+.^_`|~-';
        ELSIF name ~* '^(nats|ce|postrider)-' THEN
            RAISE EXCEPTION 'header name "%" is reserved', name
                USING ERRCODE = '22023',
                      HINT = 'names that start with Nats-, ce- or Postrider- are set by the relay; choose another name';
        ELSIF jsonb_typeof(value) NOT IN ('string', 'number', 'boolean', 'array') THEN
            RAISE EXCEPTION 'header "%" has a JSON % as its value', name, jsonb_typeof(value)
                USING ERRCODE = '22023',
                      HINT = 'use a string, a number, a boolean or an array of strings; leave out what is null';
        ELSIF jsonb_typeof(value) = 'array'
              AND jsonb_path_exists(value, '$[*] ? (@.type() != "string")') THEN
            RAISE EXCEPTION 'header "%" has an array with an element that is not a string', name
                USING ERRCODE = '22023', HINT = 'an array repeats the header: use strings only';
        END IF;
        IF jsonb_typeof(value) <> 'array' THEN
            is_valid := "postrider".check_header_value(name, value #>> '{}');
            count := count + 1;
            bytes := bytes + octet_length(name) + octet_length(value #>> '{}');
            CONTINUE;
        END IF;
        FOR item IN SELECT * FROM jsonb_array_elements_text(value) LOOP
            is_valid := "postrider".check_header_value(name, item);
            count := count + 1;
            bytes := bytes + octet_length(name) + octet_length(item);
        END LOOP;
    END LOOP;
    IF count > 64 THEN
        RAISE EXCEPTION 'an event has % headers', count
            USING ERRCODE = '22023', HINT = 'use at most 64 headers (each element of an array counts)';
    ELSIF bytes > 32768 THEN
        RAISE EXCEPTION 'the headers of an event have % bytes in total', bytes
            USING ERRCODE = '22023', HINT = 'keep names and values within 32768 bytes together';
    END IF;
END
$body$;

-- Says what is wrong with an event, or returns true. A value, because an expression is evaluated
-- without the query that PERFORM would run.
CREATE FUNCTION "postrider".check_event(
    event_type text, subject text, aggregate_type text, aggregate_id text,
    event_version integer, content_type text, headers jsonb) RETURNS boolean
LANGUAGE plpgsql STABLE AS $body$
DECLARE
    tokens text;
    hint text;
BEGIN
    -- What nearly every event is, in one expression.
    IF event_type ~ '^[0-9A-Za-z_-]+(?:\.[0-9A-Za-z_-]+)*$' AND octet_length(event_type) <= 512
       AND aggregate_type <> '' AND aggregate_id <> ''
       AND octet_length(aggregate_type) + octet_length(aggregate_id) <= 1024
       AND event_version >= 1
       AND subject IS NULL AND content_type IS NULL AND headers IS NULL THEN
        RETURN true;
    END IF;
    tokens := '^[^$[:space:][:cntrl:].*>][^[:space:][:cntrl:].*>]*(?:\.[^[:space:][:cntrl:].*>]+)*$';
    hint := 'use tokens joined by single dots, without *, >, white space or control characters, and without $ at the start';
    IF event_type IS NULL OR event_type = '' THEN
        RAISE EXCEPTION 'event_type is empty'
            USING ERRCODE = '22023', HINT = 'name the event, for example order.placed';
    ELSIF event_type !~ tokens THEN
        RAISE EXCEPTION 'event_type % cannot be part of a subject', to_json(left(event_type, 128))
            USING ERRCODE = '22023', HINT = hint;
    ELSIF octet_length(event_type) > 512 THEN
        RAISE EXCEPTION 'event_type has % bytes', octet_length(event_type)
            USING ERRCODE = '22023', HINT = 'a subject has at most 512 bytes with its prefix';
    ELSIF subject !~ tokens THEN
        RAISE EXCEPTION 'subject % cannot be published to', to_json(left(subject, 128))
            USING ERRCODE = '22023', HINT = hint;
    ELSIF octet_length(subject) > 512 THEN
        RAISE EXCEPTION 'subject has % bytes', octet_length(subject)
            USING ERRCODE = '22023', HINT = 'a subject has at most 512 bytes';
    ELSIF (aggregate_type IS NULL) <> (aggregate_id IS NULL) THEN
        RAISE EXCEPTION 'only one of aggregate_type and aggregate_id is given'
            USING ERRCODE = '22023',
                  HINT = 'give both for events that keep an order, or none for events without order';
    ELSIF aggregate_type = '' OR aggregate_id = '' THEN
        RAISE EXCEPTION 'aggregate_type or aggregate_id is empty'
            USING ERRCODE = '22023',
                  HINT = 'give both for events that keep an order, or none for events without order';
    ELSIF octet_length(aggregate_type) > 1024 OR octet_length(aggregate_id) > 1024 THEN
        RAISE EXCEPTION 'aggregate_type or aggregate_id is too long'
            USING ERRCODE = '22023', HINT = 'keep each within 1024 bytes';
    ELSIF event_version < 1 THEN
        RAISE EXCEPTION 'event_version is %', event_version
            USING ERRCODE = '22023', HINT = 'schema versions start at 1';
    ELSIF content_type = '' OR octet_length(content_type) > 256
          OR content_type ~ '[[:cntrl:]]' THEN
        RAISE EXCEPTION 'content_type % is not a media type', to_json(left(content_type, 128))
            USING ERRCODE = '22023', HINT = 'use a media type such as application/json';
    ELSIF content_type ~* '^application/cloudevents' THEN
        RAISE EXCEPTION 'content_type "%" is reserved', content_type
            USING ERRCODE = '22023',
                  HINT = 'the relay adds the CloudEvents attributes itself; name the type of the payload alone';
    END IF;
    IF headers <> '{}' THEN
        PERFORM "postrider".check_headers(headers);
    END IF;
    RETURN true;
END
$body$;

-- Transaction-local defaults for the emits that follow: correlation_id, causation_id, actor,
-- source, traceparent, tracestate, headers. A second call adds to the first; null removes a key.
CREATE FUNCTION "postrider".context(defaults jsonb) RETURNS void
LANGUAGE plpgsql VOLATILE AS $body$
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

-- deliver_at and dedup_key of the contract come with scheduled events.
CREATE FUNCTION "postrider".emit(
    event_type text, payload json,
    aggregate_type text DEFAULT NULL, aggregate_id text DEFAULT NULL,
    headers jsonb DEFAULT NULL, event_version integer DEFAULT 1,
    aggregate_version bigint DEFAULT NULL, event_id uuid DEFAULT NULL,
    subject text DEFAULT NULL, kind text DEFAULT 'domain', source text DEFAULT NULL,
    correlation_id text DEFAULT NULL, causation_id text DEFAULT NULL, actor text DEFAULT NULL
) RETURNS uuid
LANGUAGE plpgsql VOLATILE AS $body$
#variable_conflict use_variable
DECLARE
    context text := current_setting('postrider.context', true);
    defaults jsonb;
    is_valid boolean;
BEGIN
    event_id := coalesce(event_id, "postrider".uuid7());
    IF context <> '' THEN
        defaults := context::jsonb;
        headers := (defaults -> 'headers') || coalesce(headers, '{}');
        source := coalesce(source, defaults ->> 'source');
        correlation_id := coalesce(correlation_id, defaults ->> 'correlation_id');
        causation_id := coalesce(causation_id, defaults ->> 'causation_id');
        actor := coalesce(actor, defaults ->> 'actor');
    END IF;
    is_valid := "postrider".check_event(event_type, subject, aggregate_type, aggregate_id,
                                        event_version, NULL, headers);
    INSERT INTO "postrider".outbox (
        event_id, event_type, event_version, kind, aggregate_type, aggregate_id,
        aggregate_version, source, subject, headers, correlation_id, causation_id, actor, payload)
    VALUES (
        event_id, event_type, coalesce(event_version, 1), coalesce(kind, 'domain'),
        aggregate_type, aggregate_id, aggregate_version, source, subject,
        coalesce(headers, '{}'), correlation_id, causation_id, actor, payload);
    RETURN event_id;
END
$body$;

CREATE FUNCTION "postrider".emit_binary(
    event_type text, payload bytea, content_type text DEFAULT 'application/octet-stream',
    aggregate_type text DEFAULT NULL, aggregate_id text DEFAULT NULL,
    headers jsonb DEFAULT NULL, event_version integer DEFAULT 1,
    aggregate_version bigint DEFAULT NULL, event_id uuid DEFAULT NULL,
    subject text DEFAULT NULL, kind text DEFAULT 'domain', source text DEFAULT NULL,
    correlation_id text DEFAULT NULL, causation_id text DEFAULT NULL, actor text DEFAULT NULL
) RETURNS uuid
LANGUAGE plpgsql VOLATILE AS $body$
#variable_conflict use_variable
DECLARE
    context text := current_setting('postrider.context', true);
    defaults jsonb;
    is_valid boolean;
BEGIN
    event_id := coalesce(event_id, "postrider".uuid7());
    content_type := coalesce(content_type, 'application/octet-stream');
    IF context <> '' THEN
        defaults := context::jsonb;
        headers := (defaults -> 'headers') || coalesce(headers, '{}');
        source := coalesce(source, defaults ->> 'source');
        correlation_id := coalesce(correlation_id, defaults ->> 'correlation_id');
        causation_id := coalesce(causation_id, defaults ->> 'causation_id');
        actor := coalesce(actor, defaults ->> 'actor');
    END IF;
    is_valid := "postrider".check_event(event_type, subject, aggregate_type, aggregate_id,
                                        event_version, content_type, headers);
    INSERT INTO "postrider".outbox (
        event_id, event_type, event_version, kind, aggregate_type, aggregate_id,
        aggregate_version, source, subject, content_type, headers, correlation_id,
        causation_id, actor, payload_binary)
    VALUES (
        event_id, event_type, coalesce(event_version, 1), coalesce(kind, 'domain'),
        aggregate_type, aggregate_id, aggregate_version, source, subject, content_type,
        coalesce(headers, '{}'), correlation_id, causation_id, actor, payload);
    RETURN event_id;
END
$body$;

-- Many events in one statement, in the order of the array. The keys of an event are the
-- parameters of emit; binary payloads come as payload_base64 with content_type.
CREATE FUNCTION "postrider".emit_many(events jsonb) RETURNS uuid[]
LANGUAGE plpgsql VOLATILE AS $body$
#variable_conflict use_variable
DECLARE
    context text := current_setting('postrider.context', true);
    defaults jsonb := '{}';
    event jsonb;
    unknown text;
    number bigint;
    is_valid boolean;
    ids uuid[] := '{}';
BEGIN
    IF events IS NULL OR jsonb_typeof(events) <> 'array' THEN
        RAISE EXCEPTION 'events is not a JSON array'
            USING ERRCODE = '22023', HINT = 'pass an array of objects, one an event';
    END IF;
    IF context <> '' THEN
        defaults := context::jsonb;
    END IF;
    FOR event, number IN SELECT * FROM jsonb_array_elements(events) WITH ORDINALITY LOOP
        IF jsonb_typeof(event) <> 'object' THEN
            RAISE EXCEPTION 'event % is a JSON %, not an object', number, jsonb_typeof(event)
                USING ERRCODE = '22023', HINT = 'pass an array of objects, one an event';
        END IF;
        SELECT key INTO unknown FROM jsonb_object_keys(event) AS key
        WHERE key NOT IN (
            'event_type', 'payload', 'payload_base64', 'content_type', 'aggregate_type',
            'aggregate_id', 'headers', 'event_version', 'aggregate_version', 'event_id',
            'subject', 'kind', 'source', 'correlation_id', 'causation_id', 'actor')
        LIMIT 1;
        IF FOUND THEN
            RAISE EXCEPTION 'event % has the unknown key %', number, to_json(unknown)
                USING ERRCODE = '22023',
                      HINT = 'the keys are the parameters of emit, and payload_base64 and content_type';
        ELSIF event ? 'payload' AND event ? 'payload_base64' THEN
            RAISE EXCEPTION 'event % has payload and payload_base64', number
                USING ERRCODE = '22023', HINT = 'give one of them';
        END IF;
        is_valid := "postrider".check_event(
            event ->> 'event_type', event ->> 'subject', event ->> 'aggregate_type',
            event ->> 'aggregate_id', (event ->> 'event_version')::integer,
            event ->> 'content_type',
            coalesce(defaults -> 'headers', '{}')
                || coalesce(nullif(event -> 'headers', 'null'), '{}'));
        ids := ids || coalesce((event ->> 'event_id')::uuid, "postrider".uuid7());
    END LOOP;
    INSERT INTO "postrider".outbox (
        event_id, event_type, event_version, kind, aggregate_type, aggregate_id,
        aggregate_version, source, subject, content_type, headers, correlation_id,
        causation_id, actor, payload, payload_binary)
    SELECT ids[n], e ->> 'event_type', coalesce((e ->> 'event_version')::integer, 1),
           coalesce(e ->> 'kind', 'domain'), e ->> 'aggregate_type', e ->> 'aggregate_id',
           (e ->> 'aggregate_version')::bigint,
           coalesce(e ->> 'source', defaults ->> 'source'), e ->> 'subject',
           coalesce(e ->> 'content_type', CASE WHEN e ? 'payload_base64'
               THEN 'application/octet-stream' ELSE 'application/json' END),
           coalesce(defaults -> 'headers', '{}') || coalesce(nullif(e -> 'headers', 'null'), '{}'),
           coalesce(e ->> 'correlation_id', defaults ->> 'correlation_id'),
           coalesce(e ->> 'causation_id', defaults ->> 'causation_id'),
           coalesce(e ->> 'actor', defaults ->> 'actor'),
           (e -> 'payload')::json, decode(e ->> 'payload_base64', 'base64')
    FROM jsonb_array_elements(events) WITH ORDINALITY AS given (e, n)
    ORDER BY n;
    RETURN ids;
END
$body$;

DO $body$
DECLARE
    function regprocedure;
BEGIN
    FOR function IN
        SELECT p.oid FROM pg_catalog.pg_proc AS p
        WHERE p.pronamespace = '"postrider"'::regnamespace
          AND p.proname IN ('check_header_value', 'check_headers', 'check_event', 'context',
                            'emit', 'emit_binary', 'emit_many')
    LOOP
        EXECUTE format('REVOKE ALL ON FUNCTION %s FROM PUBLIC', function);
        EXECUTE format('GRANT EXECUTE ON FUNCTION %s TO postrider_producer', function);
    END LOOP;
END
$body$;
