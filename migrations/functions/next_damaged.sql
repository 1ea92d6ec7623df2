-- next_damaged(): the first row above the bookmark whose block cannot be read, or null. Only
-- the place of such a row can be learned, and not even whether its transaction was committed.

CREATE OR REPLACE FUNCTION "postrider".next_damaged(bookmark bigint, floor bigint, late xid8[])
RETURNS bigint
LANGUAGE plpgsql VOLATILE
SET enable_seqscan = off SET enable_bitmapscan = off SET enable_sort = off SET jit = off
SET search_path = pg_catalog, pg_temp AS $body$
DECLARE
    low bigint := bookmark;
    high bigint := "postrider".sequence_value('"postrider".outbox_seq_seq'::regclass);
    middle bigint;
    step bigint := 256;
    is_readable boolean;
    is_found boolean := false;
BEGIN
    -- Everything can be read up to `low`, and not up to `high` once that is found.
    WHILE low < high LOOP
        middle := CASE WHEN is_found THEN low + (high - low) / 2 ELSE least(high, low + step) END;
        step := step * 2;
        BEGIN
            PERFORM count(o.tx) FROM "postrider".outbox AS o
            WHERE o.seq > greatest(low, floor) AND o.seq <= middle;
            PERFORM count(l.event_type)
            FROM unnest(late) AS x (tx)
            JOIN LATERAL (SELECT o.event_type FROM "postrider".outbox AS o
                          WHERE o.tx >= x.tx AND o.tx <= x.tx
                            AND o.seq > low AND o.seq <= middle
                          ORDER BY o.tx, o.seq) AS l ON true;
            is_readable := true;
        EXCEPTION WHEN data_corrupted OR internal_error OR io_error OR index_corrupted THEN
            is_readable := false;
        END;
        IF is_readable THEN
            low := middle;
        ELSE
            is_found := true;
            high := middle;
        END IF;
        IF is_found AND high - low <= 1 THEN
            RETURN high;
        END IF;
    END LOOP;
    RETURN NULL;
END
$body$;

COMMENT ON FUNCTION "postrider".next_damaged(bigint, bigint, xid8[])
    IS 'The first row above the bookmark that cannot be read.';
REVOKE ALL ON FUNCTION "postrider".next_damaged(bigint, bigint, xid8[]) FROM PUBLIC;
GRANT EXECUTE ON FUNCTION "postrider".next_damaged(bigint, bigint, xid8[])
    TO postrider_relay, postrider_operator;
