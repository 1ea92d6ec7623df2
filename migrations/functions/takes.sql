-- takes(): whether a relay's filter takes an event of this type, kind, key and place.
--
-- A filter is null, which takes everything, or an object of rules. An event has to fit each of
-- them: `types` and `except_types` (a type, or its beginning and `*`), `kinds`, `aggregates`,
-- `shard` (which one, of how many). Or it is `none_of`, a list of such objects of which none may
-- take the event. The relay itself decides with a condition made of the same rules
-- (`src/event/filter.rs`), which costs less a row.

CREATE OR REPLACE FUNCTION "postrider".takes(
    filter jsonb, event_type text, kind text, aggregate_type text, aggregate_id text, seq bigint)
RETURNS boolean
LANGUAGE plpgsql IMMUTABLE PARALLEL SAFE SET search_path = pg_catalog, pg_temp
AS $body$
DECLARE
    rules jsonb;
    pattern text;
    is_matched boolean;
    number bigint;
BEGIN
    IF filter IS NULL THEN
        RETURN true;
    END IF;
    IF filter ? 'none_of' THEN
        FOR rules IN SELECT r.value FROM jsonb_array_elements(filter -> 'none_of') AS r LOOP
            IF "postrider".takes(rules, event_type, kind, aggregate_type, aggregate_id, seq) THEN
                RETURN false;
            END IF;
        END LOOP;
        RETURN true;
    END IF;
    IF filter ? 'types' THEN
        is_matched := false;
        FOR pattern IN SELECT p.value FROM jsonb_array_elements_text(filter -> 'types') AS p LOOP
            is_matched := is_matched OR CASE WHEN right(pattern, 1) = '*'
                THEN starts_with(event_type, left(pattern, -1)) ELSE event_type = pattern END;
        END LOOP;
        IF NOT is_matched THEN
            RETURN false;
        END IF;
    END IF;
    FOR pattern IN
        SELECT p.value FROM jsonb_array_elements_text(filter -> 'except_types') AS p
    LOOP
        is_matched := CASE WHEN right(pattern, 1) = '*'
            THEN starts_with(event_type, left(pattern, -1)) ELSE event_type = pattern END;
        IF is_matched THEN
            RETURN false;
        END IF;
    END LOOP;
    IF filter ? 'shard' THEN
        -- As src/event/shard.rs.
        number := CASE WHEN aggregate_id IS NULL AND aggregate_type IS NULL THEN seq
            ELSE hashtextextended(coalesce(aggregate_id, ''),
                                  hashtextextended(coalesce(aggregate_type, ''), 0)) END;
        IF (number & 9223372036854775807) % (filter -> 'shard' ->> 1)::bigint
            <> (filter -> 'shard' ->> 0)::bigint THEN
            RETURN false;
        END IF;
    END IF;
    RETURN (NOT filter ? 'kinds' OR coalesce(filter -> 'kinds' ? kind, false))
        AND (NOT filter ? 'aggregates' OR coalesce(filter -> 'aggregates' ? aggregate_type, false));
END
$body$;

COMMENT ON FUNCTION "postrider".takes(jsonb, text, text, text, text, bigint)
    IS 'Whether the filter of a relay takes an event.';
REVOKE ALL ON FUNCTION "postrider".takes(jsonb, text, text, text, text, bigint) FROM PUBLIC;
GRANT EXECUTE ON FUNCTION "postrider".takes(jsonb, text, text, text, text, bigint)
    TO postrider_relay, postrider_operator;
