-- emit(): adds an event to the outbox, and fills in what context() has set. An event that could
-- never be published is refused with SQLSTATE 22023 and a text that says what to do.
--
-- Nine functions share one body: a driver sends a document as text, json or jsonb, and a key as
-- text, uuid or bigint. Each needs a function of its own, because Postgres has no implicit cast
-- between them. An untyped literal or parameter becomes text: where functions differ, Postgres
-- prefers the string type. Only the functions with a text key have defaults for the key: otherwise
-- a call without a key would fit several. headers is anycompatible, which takes an untyped literal
-- as text; a further family of overloads would be ambiguous for every call that leaves headers out.
--
-- The document stays byte for byte unless it comes as jsonb. Its text is validated where it is
-- stored, by the cast to json: an exception block to word that error would cost each call 7 %.
--
-- The functions run in the application's own session, whatever that has set. No pattern has a
-- backslash, which standard_conforming_strings = off would remove. Each function and operator of
-- pg_catalog is qualified: a schema before pg_catalog may have an octet_length() or a ~ of its own,
-- and a SET clause would cost each call. There is no NULLIF and no IN, whose operator cannot be
-- named.
--
-- %1$s is the payload's type, %2$s the key's parameters, %3$s the variable with the key as text,
-- %4$s that variable's declaration, %5$s the key's type.

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
CREATE OR REPLACE FUNCTION "postrider".emit(
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
    -- The usual event passes in one expression: each one more is prepared anew in every
    -- transaction. An event for which it is false or null takes the long way.
    IF kind OPERATOR(pg_catalog.=) 'domain' AND headers IS NULL AND event_id IS NULL
       AND event_version OPERATOR(pg_catalog.>=) 1
       AND aggregate_type OPERATOR(pg_catalog.<>) '' AND %3$s OPERATOR(pg_catalog.<>) ''
       AND pg_catalog.octet_length(event_type)
           OPERATOR(pg_catalog.+) pg_catalog.octet_length(aggregate_type)
           OPERATOR(pg_catalog.+) pg_catalog.octet_length(%3$s) OPERATOR(pg_catalog.<=) 400
       AND coalesce(subject, source, correlation_id, causation_id, actor) IS NULL
       AND coalesce(pg_catalog.current_setting('postrider.context', true), '')
           OPERATOR(pg_catalog.=) ''
       AND event_type OPERATOR(pg_catalog.~) '^[0-9A-Za-z_-]+(?:[.][0-9A-Za-z_-]+)*$' THEN
        event_id := "postrider".uuid7();
        INSERT INTO "postrider".outbox (
            event_id, event_type, event_version, aggregate_type, aggregate_id, aggregate_version,
            payload)
        VALUES (
            event_id, event_type, event_version, aggregate_type, %3$s, aggregate_version,
            payload::json);
        RETURN event_id;
    END IF;
    context := pg_catalog.current_setting('postrider.context', true);
    IF event_id IS NULL THEN
        event_id := "postrider".uuid7();
    ELSIF event_id OPERATOR(pg_catalog.=) '00000000-0000-0000-0000-000000000000' THEN
        RAISE EXCEPTION 'event_id is all zeros'
            USING ERRCODE = '22023', HINT = 'leave it out, or give each event an id of its own';
    END IF;
    all_headers := headers;
    IF context OPERATOR(pg_catalog.<>) '' THEN
        defaults := context::jsonb;
        all_headers := (defaults OPERATOR(pg_catalog.->) 'headers')
            OPERATOR(pg_catalog.||) coalesce(all_headers, '{}');
        source := coalesce(source, defaults OPERATOR(pg_catalog.->>) 'source');
        correlation_id := coalesce(
            correlation_id, defaults OPERATOR(pg_catalog.->>) 'correlation_id');
        causation_id := coalesce(causation_id, defaults OPERATOR(pg_catalog.->>) 'causation_id');
        actor := coalesce(actor, defaults OPERATOR(pg_catalog.->>) 'actor');
    END IF;
    is_valid := "postrider".check_event(event_type, subject, aggregate_type, %3$s,
                                        event_version, NULL, all_headers)
                AND "postrider".check_kind(kind);
    IF pg_catalog.octet_length(
           pg_catalog.concat(kind, source, correlation_id, causation_id, actor))
       OPERATOR(pg_catalog.>) 400 THEN
        is_valid := "postrider".check_texts(
            pg_catalog.jsonb_build_object(
                'kind', kind, 'source', source, 'correlation_id', correlation_id,
                'causation_id', causation_id, 'actor', actor),
            pg_catalog.octet_length(
                pg_catalog.concat(event_type, subject, aggregate_type, %3$s)));
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
$body$;

COMMENT ON FUNCTION "postrider".emit(
    text, %1$s, text, %5$s, anycompatible, integer, bigint, uuid, text, text, text, text, text,
    text)
    IS 'Adds an event to the outbox.';
REVOKE ALL ON FUNCTION "postrider".emit(
    text, %1$s, text, %5$s, anycompatible, integer, bigint, uuid, text, text, text, text, text,
    text)
    FROM PUBLIC;
GRANT EXECUTE ON FUNCTION "postrider".emit(
    text, %1$s, text, %5$s, anycompatible, integer, bigint, uuid, text, text, text, text, text,
    text)
    TO postrider_producer;
                $function$,
                payload,
                CASE key WHEN 'text' THEN text_key
                    ELSE 'aggregate_type text, aggregate_id ' || key END,
                CASE key WHEN 'text' THEN 'aggregate_id' ELSE 'key' END,
                CASE key WHEN 'text' THEN '' ELSE E'\n    key text := aggregate_id::text;' END,
                key);
        END LOOP;
    END LOOP;
END
$do$;
