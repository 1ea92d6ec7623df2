-- Functions that an application calls, in the types that its driver sends.
--
-- Why: a driver sends a document as text, json or jsonb, and a key as text, uuid or bigint. Each
-- needs a function of its own, because Postgres has no implicit cast between them. An untyped
-- literal or parameter becomes text: where functions differ, Postgres prefers the string type.
-- Only the functions with a text key have defaults for the key: otherwise a call without a key
-- would fit several. headers is anycompatible, which takes an untyped literal as text; a further
-- family of overloads would be ambiguous for every call that leaves headers out.
--
-- The document stays byte for byte unless it comes as jsonb. Its text is validated where it is
-- stored, by the cast to json: an exception block to word that error would cost each call 7 %.
-- All of them check the kind. No pattern has a backslash, which standard_conforming_strings = off
-- would remove.
--
-- Locks: the functions that it replaces, for a moment.

SET LOCAL lock_timeout = '5s';

-- Says what is wrong with the kind of an event, or returns true.
CREATE FUNCTION "postrider".check_kind(kind text) RETURNS boolean
LANGUAGE plpgsql IMMUTABLE AS $body$
BEGIN
    IF kind NOT IN ('domain', 'integration', 'command', 'notification', 'system') THEN
        RAISE EXCEPTION 'kind % is unknown', to_json(left(kind, 128))
            USING ERRCODE = '22023',
                  HINT = 'use domain, integration, command, notification or system';
    END IF;
    RETURN true;
END
$body$;

DROP FUNCTION "postrider".emit(
    text, json, text, text, jsonb, integer, bigint, uuid, text, text, text, text, text, text);
DROP FUNCTION "postrider".emit_binary(
    text, bytea, text, text, text, jsonb, integer, bigint, uuid, text, text, text, text, text, text);
DROP FUNCTION "postrider".emit_many(jsonb);

-- emit: one body, nine functions. %1$s is the payload's type, %2$s the key's parameters, %3$s the
-- variable with the key as text, %4$s that variable's declaration.
DO $do$
DECLARE
    payload text;
    key text;
    text_key text := 'aggregate_type text DEFAULT NULL, aggregate_id text DEFAULT NULL';
BEGIN
    FOREACH payload IN ARRAY ARRAY['text', 'json', 'jsonb'] LOOP
        FOREACH key IN ARRAY ARRAY['text', 'uuid', 'bigint'] LOOP
            EXECUTE format(
                $function$
CREATE FUNCTION "postrider".emit(
    event_type text, payload %1$s,
    %2$s,
    headers anycompatible DEFAULT NULL::text, event_version integer DEFAULT 1,
    aggregate_version bigint DEFAULT NULL, event_id uuid DEFAULT NULL,
    subject text DEFAULT NULL, kind text DEFAULT 'domain', source text DEFAULT NULL,
    correlation_id text DEFAULT NULL, causation_id text DEFAULT NULL, actor text DEFAULT NULL
) RETURNS uuid
LANGUAGE plpgsql VOLATILE AS $body$
#variable_conflict use_variable
DECLARE
    context text;
    defaults jsonb;
    all_headers jsonb;
    is_valid boolean;%4$s
BEGIN
    -- What nearly every event is, in one expression: each one more is prepared anew in every
    -- transaction. Whatever is not true or not known takes the long way.
    IF kind = 'domain' AND headers IS NULL AND event_id IS NULL AND event_version >= 1
       AND aggregate_type <> '' AND %3$s <> ''
       AND octet_length(event_type) + octet_length(aggregate_type) + octet_length(%3$s) <= 400
       AND coalesce(subject, source, correlation_id, causation_id, actor) IS NULL
       AND coalesce(current_setting('postrider.context', true), '') = ''
       AND event_type ~ '^[0-9A-Za-z_-]+(?:[.][0-9A-Za-z_-]+)*$' THEN
        event_id := "postrider".uuid7();
        INSERT INTO "postrider".outbox (
            event_id, event_type, event_version, aggregate_type, aggregate_id, aggregate_version,
            payload)
        VALUES (
            event_id, event_type, event_version, aggregate_type, %3$s, aggregate_version,
            payload::json);
        RETURN event_id;
    END IF;
    context := current_setting('postrider.context', true);
    IF event_id IS NULL THEN
        event_id := "postrider".uuid7();
    ELSIF event_id = '00000000-0000-0000-0000-000000000000' THEN
        RAISE EXCEPTION 'event_id is all zeros'
            USING ERRCODE = '22023', HINT = 'leave it out, or give each event an id of its own';
    END IF;
    all_headers := headers;
    IF context <> '' THEN
        defaults := context::jsonb;
        all_headers := (defaults -> 'headers') || coalesce(all_headers, '{}');
        source := coalesce(source, defaults ->> 'source');
        correlation_id := coalesce(correlation_id, defaults ->> 'correlation_id');
        causation_id := coalesce(causation_id, defaults ->> 'causation_id');
        actor := coalesce(actor, defaults ->> 'actor');
    END IF;
    is_valid := "postrider".check_event(event_type, subject, aggregate_type, %3$s,
                                        event_version, NULL, all_headers)
                AND "postrider".check_kind(kind);
    IF octet_length(concat(kind, source, correlation_id, causation_id, actor)) > 400 THEN
        is_valid := "postrider".check_texts(
            jsonb_build_object('kind', kind, 'source', source, 'correlation_id', correlation_id,
                               'causation_id', causation_id, 'actor', actor),
            octet_length(concat(event_type, subject, aggregate_type, %3$s)));
    END IF;
    INSERT INTO "postrider".outbox (
        event_id, event_type, event_version, kind, aggregate_type, aggregate_id,
        aggregate_version, source, subject, headers, correlation_id, causation_id, actor, payload)
    VALUES (
        event_id, event_type, coalesce(event_version, 1), coalesce(kind, 'domain'),
        aggregate_type, %3$s, aggregate_version, source, subject,
        coalesce(all_headers, '{}'), correlation_id, causation_id, actor, payload::json);
    RETURN event_id;
END
$body$
                $function$,
                payload,
                CASE key WHEN 'text' THEN text_key
                    ELSE 'aggregate_type text, aggregate_id ' || key END,
                CASE key WHEN 'text' THEN 'aggregate_id' ELSE 'key' END,
                CASE key WHEN 'text' THEN '' ELSE E'\n    key text := aggregate_id::text;' END);
        END LOOP;
    END LOOP;
END
$do$;

-- emit_binary: one body, three functions. %1$s is the key's parameters, %2$s the variable with the
-- key as text, %3$s that variable's declaration.
DO $do$
DECLARE
    key text;
BEGIN
    FOREACH key IN ARRAY ARRAY['text', 'uuid', 'bigint'] LOOP
        EXECUTE format(
            $function$
CREATE FUNCTION "postrider".emit_binary(
    event_type text, payload bytea, %1$s,
    headers anycompatible DEFAULT NULL::text, event_version integer DEFAULT 1,
    aggregate_version bigint DEFAULT NULL, event_id uuid DEFAULT NULL,
    subject text DEFAULT NULL, kind text DEFAULT 'domain', source text DEFAULT NULL,
    correlation_id text DEFAULT NULL, causation_id text DEFAULT NULL, actor text DEFAULT NULL
) RETURNS uuid
LANGUAGE plpgsql VOLATILE AS $body$
#variable_conflict use_variable
DECLARE
    context text := current_setting('postrider.context', true);
    defaults jsonb;
    all_headers jsonb;
    is_valid boolean;%3$s
BEGIN
    IF event_id IS NULL THEN
        event_id := "postrider".uuid7();
    ELSIF event_id = '00000000-0000-0000-0000-000000000000' THEN
        RAISE EXCEPTION 'event_id is all zeros'
            USING ERRCODE = '22023', HINT = 'leave it out, or give each event an id of its own';
    END IF;
    content_type := coalesce(content_type, 'application/octet-stream');
    all_headers := headers;
    IF context <> '' THEN
        defaults := context::jsonb;
        all_headers := (defaults -> 'headers') || coalesce(all_headers, '{}');
        source := coalesce(source, defaults ->> 'source');
        correlation_id := coalesce(correlation_id, defaults ->> 'correlation_id');
        causation_id := coalesce(causation_id, defaults ->> 'causation_id');
        actor := coalesce(actor, defaults ->> 'actor');
    END IF;
    is_valid := "postrider".check_event(event_type, subject, aggregate_type, %2$s,
                                        event_version, content_type, all_headers)
                AND "postrider".check_kind(kind);
    IF octet_length(concat(kind, source, correlation_id, causation_id, actor)) > 400 THEN
        is_valid := "postrider".check_texts(
            jsonb_build_object('kind', kind, 'source', source, 'correlation_id', correlation_id,
                               'causation_id', causation_id, 'actor', actor),
            octet_length(concat(event_type, subject, aggregate_type, %2$s, content_type)));
    END IF;
    INSERT INTO "postrider".outbox (
        event_id, event_type, event_version, kind, aggregate_type, aggregate_id,
        aggregate_version, source, subject, content_type, headers, correlation_id,
        causation_id, actor, payload_binary)
    VALUES (
        event_id, event_type, coalesce(event_version, 1), coalesce(kind, 'domain'),
        aggregate_type, %2$s, aggregate_version, source, subject, content_type,
        coalesce(all_headers, '{}'), correlation_id, causation_id, actor, payload);
    RETURN event_id;
END
$body$
            $function$,
            CASE key WHEN 'text' THEN
                'content_type text DEFAULT ''application/octet-stream'', '
                || 'aggregate_type text DEFAULT NULL, aggregate_id text DEFAULT NULL'
                ELSE 'content_type text, aggregate_type text, aggregate_id ' || key END,
            CASE key WHEN 'text' THEN 'aggregate_id' ELSE 'key' END,
            CASE key WHEN 'text' THEN '' ELSE E'\n    key text := aggregate_id::text;' END);
    END LOOP;
END
$do$;

-- emit_many: one body, three functions. %1$s is the type, %2$s the payload of an event, %3$s the
-- events in their order: e as jsonb, n from 1 and, where the type keeps its text, t as json.
DO $do$
DECLARE
    given text;
BEGIN
    FOREACH given IN ARRAY ARRAY['text', 'json', 'jsonb'] LOOP
        EXECUTE format(
            $function$
CREATE FUNCTION "postrider".emit_many(events %1$s) RETURNS uuid[]
LANGUAGE plpgsql VOLATILE AS $body$
#variable_conflict use_variable
DECLARE
    context text := current_setting('postrider.context', true);
    defaults jsonb := '{}';
    given jsonb := events;
    event jsonb;
    unknown text;
    number bigint;
    ids_given boolean := false;
    is_valid boolean;
    ids uuid[] := '{}';
BEGIN
    IF given IS NULL OR jsonb_typeof(given) <> 'array' THEN
        RAISE EXCEPTION 'events is not a JSON array'
            USING ERRCODE = '22023', HINT = 'pass an array of objects, one an event';
    END IF;
    IF context <> '' THEN
        defaults := context::jsonb;
    END IF;
    FOR event, number IN SELECT * FROM jsonb_array_elements(given) WITH ORDINALITY LOOP
        IF jsonb_typeof(event) <> 'object' THEN
            RAISE EXCEPTION 'event %% is a JSON %%, not an object', number, jsonb_typeof(event)
                USING ERRCODE = '22023', HINT = 'pass an array of objects, one an event';
        END IF;
        SELECT key INTO unknown FROM jsonb_object_keys(event) AS key
        WHERE key <> ALL (ARRAY[
            'event_type', 'payload', 'payload_base64', 'content_type', 'aggregate_type',
            'aggregate_id', 'headers', 'event_version', 'aggregate_version', 'event_id',
            'subject', 'kind', 'source', 'correlation_id', 'causation_id', 'actor'])
        LIMIT 1;
        IF FOUND THEN
            RAISE EXCEPTION 'event %% has the unknown key %%', number, to_json(unknown)
                USING ERRCODE = '22023',
                      HINT = 'the keys are the parameters of emit, payload_base64 and content_type';
        ELSIF event ? 'payload' AND event ? 'payload_base64' THEN
            RAISE EXCEPTION 'event %% has payload and payload_base64', number
                USING ERRCODE = '22023', HINT = 'give one of them';
        END IF;
        is_valid := "postrider".check_event(
            event ->> 'event_type', event ->> 'subject', event ->> 'aggregate_type',
            event ->> 'aggregate_id', (event ->> 'event_version')::integer,
            event ->> 'content_type',
            coalesce(defaults -> 'headers', '{}')
                || CASE WHEN event -> 'headers' <> 'null' THEN event -> 'headers' ELSE '{}' END)
            AND "postrider".check_kind(event ->> 'kind');
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
           coalesce(defaults -> 'headers', '{}')
               || CASE WHEN e -> 'headers' <> 'null' THEN e -> 'headers' ELSE '{}' END,
           coalesce(e ->> 'correlation_id', defaults ->> 'correlation_id'),
           coalesce(e ->> 'causation_id', defaults ->> 'causation_id'),
           coalesce(e ->> 'actor', defaults ->> 'actor'),
           %2$s, decode(e ->> 'payload_base64', 'base64')
    FROM %3$s
    ORDER BY n;
    RETURN ids;
END
$body$
            $function$,
            given,
            CASE given WHEN 'jsonb' THEN '(e -> ''payload'')::json' ELSE 't -> ''payload''' END,
            CASE given WHEN 'jsonb'
                THEN 'jsonb_array_elements(events) WITH ORDINALITY AS all_of (e, n)'
                ELSE 'ROWS FROM (jsonb_array_elements(given), json_array_elements(events::json)) '
                     || 'WITH ORDINALITY AS all_of (e, t, n)' END);
    END LOOP;
END
$do$;

CREATE FUNCTION "postrider".context(defaults text) RETURNS void
LANGUAGE sql VOLATILE AS $body$ SELECT "postrider".context(defaults::jsonb) $body$;

CREATE FUNCTION "postrider".context(defaults json) RETURNS void
LANGUAGE sql VOLATILE AS $body$ SELECT "postrider".context(defaults::jsonb) $body$;

-- What these functions name is that of pg_catalog, whatever the search_path of the calling session:
-- a schema before pg_catalog may have an octet_length() or a ~ of its own. The functions that
-- nearly every event passes are bound by their text, which costs no call anything. They have no
-- NULLIF and no IN, whose operator cannot be named. The others have a SET clause.
DO $body$
DECLARE
    function regprocedure;
    definition text;
    named CONSTANT text := 'octet_length|current_setting|concat|jsonb_build_object|jsonb_typeof|'
        || 'jsonb_array_elements|json_array_elements|jsonb_object_keys|to_json|decode|unnest|cardinality|'
        || 'count';
BEGIN
    FOR function IN
        SELECT p.oid FROM pg_catalog.pg_proc AS p
        WHERE p.pronamespace = '"postrider"'::regnamespace
          AND p.proname IN ('claim', 'emit', 'emit_binary', 'emit_many')
    LOOP
        definition := pg_get_functiondef(function);
        definition := left(definition, strpos(definition, '#variable_conflict') - 1)
            || regexp_replace(
                regexp_replace(substr(definition, strpos(definition, '#variable_conflict')),
                               '([^a-z_.])(' || named || ')[(]', E'\\1pg_catalog.\\2(', 'g'),
                ' (->>|->|[|][|]|<>|>=|<=|=|~|[?]|<|>|[+]|-) ', E' OPERATOR(pg_catalog.\\1) ', 'g');
        -- RAISE has equals signs of its own.
        definition := regexp_replace(definition, '(ERRCODE|HINT) OPERATOR[(]pg_catalog[.]=[)]',
                                     E'\\1 =', 'g');
        EXECUTE definition;
    END LOOP;
    FOR function IN
        SELECT p.oid FROM pg_catalog.pg_proc AS p
        WHERE p.pronamespace = '"postrider"'::regnamespace
          AND p.proname IN ('check_event', 'check_header_value', 'check_headers', 'check_kind',
                            'check_texts', 'context')
    LOOP
        EXECUTE format('ALTER FUNCTION %s SET search_path = pg_catalog, pg_temp', function);
    END LOOP;
END
$body$;

DO $body$
DECLARE
    function regprocedure;
BEGIN
    FOR function IN
        SELECT p.oid FROM pg_catalog.pg_proc AS p
        WHERE p.pronamespace = '"postrider"'::regnamespace
          AND p.proname IN ('check_kind', 'context', 'emit', 'emit_binary', 'emit_many')
    LOOP
        EXECUTE format('REVOKE ALL ON FUNCTION %s FROM PUBLIC', function);
        EXECUTE format('GRANT EXECUTE ON FUNCTION %s TO postrider_producer', function);
    END LOOP;
END
$body$;
