-- emit_many(): adds the events of a JSON array to the outbox, in one statement. As emit.sql: one
-- body, three functions.
--
-- %1$s is the type, %2$s the payload of an event, %3$s the events in their order: e as jsonb, n
-- from 1 and, where the type keeps its text, t as json.

DO $do$
DECLARE
    given text;
BEGIN
    FOREACH given IN ARRAY ARRAY['text', 'json', 'jsonb'] LOOP
        EXECUTE format(
            $function$
CREATE OR REPLACE FUNCTION "postrider".emit_many(events %1$s) RETURNS uuid[]
LANGUAGE plpgsql VOLATILE AS $body$
#variable_conflict use_variable
DECLARE
    context text := pg_catalog.current_setting('postrider.context', true);
    defaults jsonb := '{}';
    given jsonb := events;
    event jsonb;
    unknown text;
    number bigint;
    ids_given boolean := false;
    is_valid boolean;
    ids uuid[] := '{}';
BEGIN
    IF given IS NULL OR pg_catalog.jsonb_typeof(given) OPERATOR(pg_catalog.<>) 'array' THEN
        RAISE EXCEPTION 'events is not a JSON array'
            USING ERRCODE = '22023', HINT = 'pass an array of objects, one an event';
    END IF;
    IF context OPERATOR(pg_catalog.<>) '' THEN
        defaults := context::jsonb;
    END IF;
    FOR event, number IN SELECT * FROM pg_catalog.jsonb_array_elements(given) WITH ORDINALITY LOOP
        IF pg_catalog.jsonb_typeof(event) OPERATOR(pg_catalog.<>) 'object' THEN
            RAISE EXCEPTION 'event %% is a JSON %%, not an object',
                    number, pg_catalog.jsonb_typeof(event)
                USING ERRCODE = '22023', HINT = 'pass an array of objects, one an event';
        END IF;
        SELECT key INTO unknown FROM pg_catalog.jsonb_object_keys(event) AS key
        WHERE key OPERATOR(pg_catalog.<>) ALL (ARRAY[
            'event_type', 'payload', 'payload_base64', 'content_type', 'aggregate_type',
            'aggregate_id', 'headers', 'event_version', 'aggregate_version', 'event_id',
            'subject', 'kind', 'source', 'correlation_id', 'causation_id', 'actor'])
        LIMIT 1;
        IF FOUND THEN
            RAISE EXCEPTION 'event %% has the unknown key %%', number, pg_catalog.to_json(unknown)
                USING ERRCODE = '22023',
                      HINT = 'the keys are the parameters of emit, payload_base64 and content_type';
        ELSIF event OPERATOR(pg_catalog.?) 'payload'
              AND event OPERATOR(pg_catalog.?) 'payload_base64' THEN
            RAISE EXCEPTION 'event %% has payload and payload_base64', number
                USING ERRCODE = '22023', HINT = 'give one of them';
        END IF;
        is_valid := "postrider".check_event(
            event OPERATOR(pg_catalog.->>) 'event_type', event OPERATOR(pg_catalog.->>) 'subject',
            event OPERATOR(pg_catalog.->>) 'aggregate_type',
            event OPERATOR(pg_catalog.->>) 'aggregate_id',
            (event OPERATOR(pg_catalog.->>) 'event_version')::integer,
            event OPERATOR(pg_catalog.->>) 'content_type',
            coalesce(defaults OPERATOR(pg_catalog.->) 'headers', '{}')
                OPERATOR(pg_catalog.||)
                CASE WHEN event OPERATOR(pg_catalog.->) 'headers' OPERATOR(pg_catalog.<>) 'null'
                     THEN event OPERATOR(pg_catalog.->) 'headers' ELSE '{}' END)
            AND "postrider".check_kind(event OPERATOR(pg_catalog.->>) 'kind');
        IF pg_catalog.octet_length(
               (event OPERATOR(pg_catalog.-) '{payload,payload_base64,headers}'::text[])::text)
           OPERATOR(pg_catalog.+) pg_catalog.octet_length(defaults::text)
           OPERATOR(pg_catalog.>) 400 THEN
            is_valid := "postrider".check_texts(
                pg_catalog.jsonb_build_object(
                    'kind', event OPERATOR(pg_catalog.->>) 'kind',
                    'source', coalesce(event OPERATOR(pg_catalog.->>) 'source',
                                       defaults OPERATOR(pg_catalog.->>) 'source'),
                    'correlation_id', coalesce(event OPERATOR(pg_catalog.->>) 'correlation_id',
                                               defaults OPERATOR(pg_catalog.->>) 'correlation_id'),
                    'causation_id', coalesce(event OPERATOR(pg_catalog.->>) 'causation_id',
                                             defaults OPERATOR(pg_catalog.->>) 'causation_id'),
                    'actor', coalesce(event OPERATOR(pg_catalog.->>) 'actor',
                                      defaults OPERATOR(pg_catalog.->>) 'actor')),
                pg_catalog.octet_length(pg_catalog.concat(
                    event OPERATOR(pg_catalog.->>) 'event_type',
                    event OPERATOR(pg_catalog.->>) 'subject',
                    event OPERATOR(pg_catalog.->>) 'aggregate_type',
                    event OPERATOR(pg_catalog.->>) 'aggregate_id',
                    event OPERATOR(pg_catalog.->>) 'content_type')));
        END IF;
        IF event OPERATOR(pg_catalog.?) 'event_id' THEN
            ids_given := true;
        END IF;
        ids := ids OPERATOR(pg_catalog.||)
            coalesce((event OPERATOR(pg_catalog.->>) 'event_id')::uuid, "postrider".uuid7());
    END LOOP;
    IF ids_given AND (
        '00000000-0000-0000-0000-000000000000' OPERATOR(pg_catalog.=) ANY (ids)
        OR (SELECT pg_catalog.count(DISTINCT id) FROM pg_catalog.unnest(ids) AS id)
           OPERATOR(pg_catalog.<) pg_catalog.cardinality(ids)) THEN
        RAISE EXCEPTION 'two events have the same event_id, or one is all zeros'
            USING ERRCODE = '22023', HINT = 'leave it out, or give each event an id of its own';
    END IF;
    INSERT INTO "postrider".outbox (
        event_id, event_type, event_version, kind, aggregate_type, aggregate_id,
        aggregate_version, source, subject, content_type, headers, correlation_id,
        causation_id, actor, payload, payload_binary)
    SELECT ids[n], e OPERATOR(pg_catalog.->>) 'event_type',
           coalesce((e OPERATOR(pg_catalog.->>) 'event_version')::integer, 1),
           coalesce(e OPERATOR(pg_catalog.->>) 'kind', 'domain'),
           e OPERATOR(pg_catalog.->>) 'aggregate_type', e OPERATOR(pg_catalog.->>) 'aggregate_id',
           (e OPERATOR(pg_catalog.->>) 'aggregate_version')::bigint,
           coalesce(e OPERATOR(pg_catalog.->>) 'source',
                    defaults OPERATOR(pg_catalog.->>) 'source'),
           e OPERATOR(pg_catalog.->>) 'subject',
           coalesce(e OPERATOR(pg_catalog.->>) 'content_type',
                    CASE WHEN e OPERATOR(pg_catalog.?) 'payload_base64'
                         THEN 'application/octet-stream' ELSE 'application/json' END),
           coalesce(defaults OPERATOR(pg_catalog.->) 'headers', '{}')
               OPERATOR(pg_catalog.||)
               CASE WHEN e OPERATOR(pg_catalog.->) 'headers' OPERATOR(pg_catalog.<>) 'null'
                    THEN e OPERATOR(pg_catalog.->) 'headers' ELSE '{}' END,
           coalesce(e OPERATOR(pg_catalog.->>) 'correlation_id',
                    defaults OPERATOR(pg_catalog.->>) 'correlation_id'),
           coalesce(e OPERATOR(pg_catalog.->>) 'causation_id',
                    defaults OPERATOR(pg_catalog.->>) 'causation_id'),
           coalesce(e OPERATOR(pg_catalog.->>) 'actor', defaults OPERATOR(pg_catalog.->>) 'actor'),
           %2$s, pg_catalog.decode(e OPERATOR(pg_catalog.->>) 'payload_base64', 'base64')
    FROM %3$s
    ORDER BY n;
    RETURN ids;
END
$body$;

COMMENT ON FUNCTION "postrider".emit_many(%1$s)
    IS 'Adds the events of a JSON array to the outbox.';
REVOKE ALL ON FUNCTION "postrider".emit_many(%1$s) FROM PUBLIC;
GRANT EXECUTE ON FUNCTION "postrider".emit_many(%1$s) TO postrider_producer;
            $function$,
            given,
            CASE given WHEN 'jsonb' THEN '(e OPERATOR(pg_catalog.->) ''payload'')::json'
                ELSE 't OPERATOR(pg_catalog.->) ''payload''' END,
            CASE given WHEN 'jsonb'
                THEN 'pg_catalog.jsonb_array_elements(events) WITH ORDINALITY AS all_of (e, n)'
                ELSE 'ROWS FROM (pg_catalog.jsonb_array_elements(given), '
                     || 'pg_catalog.json_array_elements(events::json)) '
                     || 'WITH ORDINALITY AS all_of (e, t, n)' END);
    END LOOP;
END
$do$;
