-- emit_binary(): adds one event with a binary payload to the outbox. As emit.sql: one body, three
-- functions.
--
-- %1$s is the key's parameters, %2$s the variable with the key as text, %3$s that variable's
-- declaration, %4$s the key's type.

DO $do$
DECLARE
    key text;
BEGIN
    FOREACH key IN ARRAY ARRAY['text', 'uuid', 'bigint'] LOOP
        EXECUTE format(
            $function$
CREATE OR REPLACE FUNCTION "postrider".emit_binary(
    event_type text, payload bytea, %1$s,
    headers anycompatible DEFAULT NULL::text, event_version integer DEFAULT 1,
    aggregate_version bigint DEFAULT NULL, event_id uuid DEFAULT NULL,
    subject text DEFAULT NULL, kind text DEFAULT 'domain', source text DEFAULT NULL,
    correlation_id text DEFAULT NULL, causation_id text DEFAULT NULL, actor text DEFAULT NULL
) RETURNS uuid
LANGUAGE plpgsql VOLATILE AS $body$
#variable_conflict use_variable
DECLARE
    context text := pg_catalog.current_setting('postrider.context', true);
    defaults jsonb;
    all_headers jsonb;
    is_valid boolean;%3$s
BEGIN
    IF event_id IS NULL THEN
        event_id := "postrider".uuid7();
    ELSIF event_id OPERATOR(pg_catalog.=) '00000000-0000-0000-0000-000000000000' THEN
        RAISE EXCEPTION 'event_id is all zeros'
            USING ERRCODE = '22023', HINT = 'leave it out, or give each event an id of its own';
    END IF;
    content_type := coalesce(content_type, 'application/octet-stream');
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
    is_valid := "postrider".check_event(event_type, subject, aggregate_type, %2$s,
                                        event_version, content_type, all_headers)
                AND "postrider".check_kind(kind);
    IF pg_catalog.octet_length(
           pg_catalog.concat(kind, source, correlation_id, causation_id, actor))
       OPERATOR(pg_catalog.>) 400 THEN
        is_valid := "postrider".check_texts(
            pg_catalog.jsonb_build_object(
                'kind', kind, 'source', source, 'correlation_id', correlation_id,
                'causation_id', causation_id, 'actor', actor),
            pg_catalog.octet_length(
                pg_catalog.concat(event_type, subject, aggregate_type, %2$s, content_type)));
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
$body$;

COMMENT ON FUNCTION "postrider".emit_binary(
    text, bytea, text, text, %4$s, anycompatible, integer, bigint, uuid, text, text, text, text,
    text, text)
    IS 'Adds an event with a binary payload to the outbox.';
REVOKE ALL ON FUNCTION "postrider".emit_binary(
    text, bytea, text, text, %4$s, anycompatible, integer, bigint, uuid, text, text, text, text,
    text, text) FROM PUBLIC;
GRANT EXECUTE ON FUNCTION "postrider".emit_binary(
    text, bytea, text, text, %4$s, anycompatible, integer, bigint, uuid, text, text, text, text,
    text, text) TO postrider_producer;
            $function$,
            CASE key WHEN 'text' THEN
                'content_type text DEFAULT ''application/octet-stream'', '
                || 'aggregate_type text DEFAULT NULL, aggregate_id text DEFAULT NULL'
                ELSE 'content_type text, aggregate_type text, aggregate_id ' || key END,
            CASE key WHEN 'text' THEN 'aggregate_id' ELSE 'key' END,
            CASE key WHEN 'text' THEN '' ELSE E'\n    key text := aggregate_id::text;' END,
            key);
    END LOOP;
END
$do$;
