-- The functions that refuse events at the insert, with what was missing from 0003.
--
-- Why: what the relay would have to set aside as a dead letter shall be told to the application, in
-- its own transaction. New are: control characters beyond ASCII, white space beyond ASCII, texts
-- that are too long once they are encoded, texts that do not fit into a row together, an event id
-- of zeros, the same id twice, lists in lists of headers, and subjects of somebody's inbox. And one
-- thing less is refused: a trace context, which middleware adds, and which the relay leaves out when
-- it is broken.
--
-- Locks: the functions that it replaces, for a moment. Their grants stay.

SET LOCAL lock_timeout = '5s';

-- What a text takes as a CloudEvents attribute: in UTF-8, and `%XX` for each byte that is not plain.
CREATE FUNCTION "postrider".encoded_bytes(value text) RETURNS integer
LANGUAGE sql IMMUTABLE STRICT PARALLEL SAFE
RETURN octet_length(convert_to(value, 'UTF8'))
    + 2 * octet_length(convert_to(regexp_replace(value, '[!#$&-~]+', '', 'g'), 'UTF8'));

-- The control characters (and the blanks, if so told) that Unicode has beyond ASCII, as a pattern.
-- Null where the same bytes are letters.
CREATE FUNCTION "postrider".unseen(with_blanks boolean) RETURNS text
LANGUAGE sql STABLE PARALLEL SAFE
RETURN CASE
    WHEN getdatabaseencoding() = 'UTF8' AND with_blanks
        THEN '[\u0080-\u00a0\u1680\u2000-\u200a\u2028\u2029\u202f\u205f\u3000\ufffd]'
    WHEN getdatabaseencoding() = 'UTF8' OR getdatabaseencoding() ~ '^(LATIN|ISO_8859)'
        THEN CASE WHEN with_blanks THEN '[\x80-\xa0]' ELSE '[\x80-\x9f]' END
    END;

CREATE OR REPLACE FUNCTION "postrider".check_header_value(name text, value text) RETURNS boolean
LANGUAGE plpgsql STABLE AS $body$
BEGIN
    -- What nearly every value is, in one expression.
    IF octet_length(value) <= 1024 AND value ~ '^[\x20-\x7e]*$' THEN
        RETURN true;
    ELSIF octet_length(convert_to(value, 'UTF8')) > 4096 THEN
        RAISE EXCEPTION 'header "%" has a value of % bytes', name, octet_length(convert_to(value, 'UTF8'))
            USING ERRCODE = '22023',
                  HINT = 'keep each value within 4096 bytes; large data belongs in the payload';
    ELSIF value ~ '[\x01-\x08\x0a-\x1f\x7f]' OR value ~ "postrider".unseen(false) THEN
        RAISE EXCEPTION 'header "%" has a control character in its value', name
            USING ERRCODE = '22023',
                  HINT = 'remove line breaks and control characters; a tab is allowed';
    END IF;
    RETURN true;
END
$body$;

CREATE OR REPLACE FUNCTION "postrider".check_headers(headers jsonb) RETURNS void
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
        ELSIF lower(name) IN ('traceparent', 'tracestate', 'baggage')
              AND octet_length(value::text) <= 8192 THEN
            -- Nobody's transaction shall fail for it: what cannot be sent of it, the relay leaves out.
            CONTINUE;
        ELSIF jsonb_typeof(value) NOT IN ('string', 'number', 'boolean', 'array') THEN
            RAISE EXCEPTION 'header "%" has a JSON % as its value', name, jsonb_typeof(value)
                USING ERRCODE = '22023',
                      HINT = 'use a string, a number, a boolean or an array of strings; leave out what is null';
        ELSIF jsonb_typeof(value) = 'array'
              AND jsonb_path_exists(value, 'strict $[*] ? (@.type() != "string")') THEN
            RAISE EXCEPTION 'header "%" has an array with an element that is not a string', name
                USING ERRCODE = '22023', HINT = 'an array repeats the header: use strings only';
        END IF;
        IF jsonb_typeof(value) <> 'array' THEN
            is_valid := "postrider".check_header_value(name, value #>> '{}');
            count := count + 1;
            bytes := bytes + octet_length(name) + octet_length(convert_to(value #>> '{}', 'UTF8'));
            CONTINUE;
        END IF;
        FOR item IN SELECT * FROM jsonb_array_elements_text(value) LOOP
            is_valid := "postrider".check_header_value(name, item);
            count := count + 1;
            bytes := bytes + octet_length(name) + octet_length(convert_to(item, 'UTF8'));
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

CREATE OR REPLACE FUNCTION "postrider".check_event(
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
       AND octet_length(aggregate_type) + octet_length(aggregate_id) <= 400
       AND event_version >= 1
       AND subject IS NULL AND content_type IS NULL AND headers IS NULL THEN
        RETURN true;
    END IF;
    tokens := '^[^$[:space:][:cntrl:].*>][^[:space:][:cntrl:].*>]*(?:\.[^[:space:][:cntrl:].*>]+)*$';
    hint := 'use tokens joined by single dots, without *, >, white space or control characters, and without $ or _INBOX at the start';
    IF event_type IS NULL OR event_type = '' THEN
        RAISE EXCEPTION 'event_type is empty'
            USING ERRCODE = '22023', HINT = 'name the event, for example order.placed';
    ELSIF event_type !~ tokens
          OR event_type ~ '[^\x21-\x7e]' AND event_type ~ "postrider".unseen(true) THEN
        RAISE EXCEPTION 'event_type % cannot be part of a subject', to_json(left(event_type, 128))
            USING ERRCODE = '22023', HINT = hint;
    ELSIF octet_length(event_type) > 128 AND octet_length(convert_to(event_type, 'UTF8')) > 512 THEN
        RAISE EXCEPTION 'event_type has % bytes', octet_length(convert_to(event_type, 'UTF8'))
            USING ERRCODE = '22023', HINT = 'a subject has at most 512 bytes with its prefix';
    ELSIF subject !~ tokens OR subject ~ '^_INBOX'
          OR subject ~ '[^\x21-\x7e]' AND subject ~ "postrider".unseen(true) THEN
        RAISE EXCEPTION 'subject % cannot be published to', to_json(left(subject, 128))
            USING ERRCODE = '22023', HINT = hint;
    ELSIF octet_length(subject) > 128 AND octet_length(convert_to(subject, 'UTF8')) > 512 THEN
        RAISE EXCEPTION 'subject has % bytes', octet_length(convert_to(subject, 'UTF8'))
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
    ELSIF octet_length(aggregate_type) + octet_length(aggregate_id) > 400
          AND "postrider".encoded_bytes(aggregate_type || '/' || aggregate_id) > 4096 THEN
        RAISE EXCEPTION 'aggregate_type and aggregate_id are too long once they are encoded'
            USING ERRCODE = '22023',
                  HINT = 'each byte that is not plain ASCII counts three times: keep both within 4096 together';
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

-- Says which of the longer texts of an event cannot be sent or stored, or returns true. Called only
-- when there is a long one.
CREATE FUNCTION "postrider".check_texts(texts jsonb, others integer) RETURNS boolean
LANGUAGE plpgsql STABLE AS $body$
DECLARE
    name text;
    value text;
    bytes integer := others;
BEGIN
    FOR name, value IN SELECT * FROM jsonb_each_text(texts) LOOP
        IF "postrider".encoded_bytes(value) > 4096 THEN
            RAISE EXCEPTION '% has % bytes once it is encoded', name, "postrider".encoded_bytes(value)
                USING ERRCODE = '22023',
                      HINT = 'keep it within 4096, where each byte that is not plain ASCII counts three times';
        END IF;
        bytes := bytes + coalesce(octet_length(value), 0);
    END LOOP;
    IF bytes > 7500 THEN
        RAISE EXCEPTION 'the texts of an event have % bytes in total', bytes
            USING ERRCODE = '22023',
                  HINT = 'a row has room for 7500 bytes beside its headers and its payload; large data belongs in the payload';
    END IF;
    RETURN true;
END
$body$;

CREATE OR REPLACE FUNCTION "postrider".emit(
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
    context text;
    defaults jsonb;
    is_valid boolean;
BEGIN
    -- What nearly every event is, in one expression: each one more is prepared anew in every
    -- transaction. Whatever is not true or not known takes the long way.
    IF kind = 'domain' AND headers IS NULL AND event_id IS NULL AND event_version >= 1
       AND aggregate_type <> '' AND aggregate_id <> ''
       AND octet_length(event_type) + octet_length(aggregate_type) + octet_length(aggregate_id) <= 400
       AND coalesce(subject, source, correlation_id, causation_id, actor,
                    nullif(current_setting('postrider.context', true), '')) IS NULL
       AND event_type ~ '^[0-9A-Za-z_-]+(?:\.[0-9A-Za-z_-]+)*$' THEN
        event_id := "postrider".uuid7();
        INSERT INTO "postrider".outbox (
            event_id, event_type, event_version, aggregate_type, aggregate_id, aggregate_version,
            payload)
        VALUES (
            event_id, event_type, event_version, aggregate_type, aggregate_id, aggregate_version,
            payload);
        RETURN event_id;
    END IF;
    context := current_setting('postrider.context', true);
    IF event_id IS NULL THEN
        event_id := "postrider".uuid7();
    ELSIF event_id = '00000000-0000-0000-0000-000000000000' THEN
        RAISE EXCEPTION 'event_id is all zeros'
            USING ERRCODE = '22023', HINT = 'leave it out, or give each event an id of its own';
    END IF;
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
    IF octet_length(concat(kind, source, correlation_id, causation_id, actor)) > 400 THEN
        is_valid := "postrider".check_texts(
            jsonb_build_object('kind', kind, 'source', source, 'correlation_id', correlation_id,
                               'causation_id', causation_id, 'actor', actor),
            octet_length(concat(event_type, subject, aggregate_type, aggregate_id)));
    END IF;
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

CREATE OR REPLACE FUNCTION "postrider".emit_binary(
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
    IF event_id IS NULL THEN
        event_id := "postrider".uuid7();
    ELSIF event_id = '00000000-0000-0000-0000-000000000000' THEN
        RAISE EXCEPTION 'event_id is all zeros'
            USING ERRCODE = '22023', HINT = 'leave it out, or give each event an id of its own';
    END IF;
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
    IF octet_length(concat(kind, source, correlation_id, causation_id, actor)) > 400 THEN
        is_valid := "postrider".check_texts(
            jsonb_build_object('kind', kind, 'source', source, 'correlation_id', correlation_id,
                               'causation_id', causation_id, 'actor', actor),
            octet_length(concat(event_type, subject, aggregate_type, aggregate_id, content_type)));
    END IF;
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

CREATE OR REPLACE FUNCTION "postrider".emit_many(events jsonb) RETURNS uuid[]
LANGUAGE plpgsql VOLATILE AS $body$
#variable_conflict use_variable
DECLARE
    context text := current_setting('postrider.context', true);
    defaults jsonb := '{}';
    event jsonb;
    unknown text;
    number bigint;
    ids_given boolean := false;
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
        IF octet_length((event - '{payload,payload_base64,headers}'::text[])::text)
           + octet_length(defaults::text) > 400 THEN
            is_valid := "postrider".check_texts(
                jsonb_build_object(
                    'kind', event ->> 'kind',
                    'source', coalesce(event ->> 'source', defaults ->> 'source'),
                    'correlation_id',
                    coalesce(event ->> 'correlation_id', defaults ->> 'correlation_id'),
                    'causation_id', coalesce(event ->> 'causation_id', defaults ->> 'causation_id'),
                    'actor', coalesce(event ->> 'actor', defaults ->> 'actor')),
                octet_length(concat(event ->> 'event_type', event ->> 'subject',
                                    event ->> 'aggregate_type', event ->> 'aggregate_id',
                                    event ->> 'content_type')));
        END IF;
        IF event ? 'event_id' THEN
            ids_given := true;
        END IF;
        ids := ids || coalesce((event ->> 'event_id')::uuid, "postrider".uuid7());
    END LOOP;
    IF ids_given AND (
        '00000000-0000-0000-0000-000000000000' = ANY (ids)
        OR (SELECT count(DISTINCT id) FROM unnest(ids) AS id) < cardinality(ids)) THEN
        RAISE EXCEPTION 'two events have the same event_id, or one is all zeros'
            USING ERRCODE = '22023', HINT = 'leave it out, or give each event an id of its own';
    END IF;
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
          AND p.proname IN ('encoded_bytes', 'unseen', 'check_texts')
    LOOP
        EXECUTE format('REVOKE ALL ON FUNCTION %s FROM PUBLIC', function);
        EXECUTE format('GRANT EXECUTE ON FUNCTION %s TO postrider_producer', function);
    END LOOP;
END
$body$;
