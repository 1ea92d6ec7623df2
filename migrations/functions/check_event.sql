-- check_event(): refuses an event that the relay would have to set aside as a dead letter (22023),
-- or returns true. So the application learns of it in its own transaction.

CREATE OR REPLACE FUNCTION "postrider".check_event(
    event_type text, subject text, aggregate_type text, aggregate_id text,
    event_version integer, content_type text, headers jsonb) RETURNS boolean
LANGUAGE plpgsql STABLE
SET search_path = pg_catalog, pg_temp AS $body$
DECLARE
    tokens text;
    hint text;
BEGIN
    -- The usual event passes in one expression.
    IF event_type ~ '^[0-9A-Za-z_-]+(?:[.][0-9A-Za-z_-]+)*$' AND octet_length(event_type) <= 512
       AND aggregate_type <> '' AND aggregate_id <> ''
       AND octet_length(aggregate_type) + octet_length(aggregate_id) <= 400
       AND event_version >= 1
       AND subject IS NULL AND content_type IS NULL AND headers IS NULL THEN
        RETURN true;
    END IF;
    tokens := '^[^$[:space:][:cntrl:].*>][^[:space:][:cntrl:].*>]*(?:[.][^[:space:][:cntrl:].*>]+)*$';
    hint := 'use tokens joined by single dots, without *, >, white space or control characters, and without $ or _INBOX at the start';
    IF event_type IS NULL OR event_type = '' THEN
        RAISE EXCEPTION 'event_type is empty'
            USING ERRCODE = '22023', HINT = 'name the event, for example order.placed';
    ELSIF event_type !~ tokens
          OR event_type ~ '[^!-~]' AND event_type ~ "postrider".unseen(true) THEN
        RAISE EXCEPTION 'event_type % cannot be part of a subject', to_json(left(event_type, 128))
            USING ERRCODE = '22023', HINT = hint;
    ELSIF octet_length(event_type) > 128 AND octet_length(convert_to(event_type, 'UTF8')) > 512 THEN
        RAISE EXCEPTION 'event_type has % bytes', octet_length(convert_to(event_type, 'UTF8'))
            USING ERRCODE = '22023', HINT = 'a subject has at most 512 bytes with its prefix';
    ELSIF subject !~ tokens OR subject ~ '^_INBOX'
          OR subject ~ '[^!-~]' AND subject ~ "postrider".unseen(true) THEN
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

COMMENT ON FUNCTION "postrider".check_event(text, text, text, text, integer, text, jsonb)
    IS 'Refuses an event that could never be published.';
REVOKE ALL ON FUNCTION "postrider".check_event(text, text, text, text, integer, text, jsonb)
    FROM PUBLIC;
GRANT EXECUTE ON FUNCTION "postrider".check_event(text, text, text, text, integer, text, jsonb)
    TO postrider_producer;
