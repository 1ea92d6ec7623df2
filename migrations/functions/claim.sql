-- claim(): takes an event's key for a consumer. True the first time: do the work and commit. False:
-- it is done.
--
-- A repeated id raises nothing under READ COMMITTED, so the transaction stays usable; a claim that
-- another transaction has not committed yet is waited for. Under REPEATABLE READ and SERIALIZABLE
-- an id that was claimed after the transaction's snapshot was taken raises 40001: roll back and try
-- again, then it is false.
--
-- Each name of pg_catalog is qualified, as in emit.sql.

CREATE OR REPLACE FUNCTION "postrider".claim(consumer text, event_id uuid) RETURNS boolean
LANGUAGE plpgsql VOLATILE AS $body$
#variable_conflict use_variable
BEGIN
    IF consumer IS NULL OR consumer OPERATOR(pg_catalog.=) ''
       OR pg_catalog.octet_length(consumer) OPERATOR(pg_catalog.>) 255 THEN
        RAISE EXCEPTION 'consumer is empty or longer than 255 bytes'
            USING ERRCODE = '22023',
                  HINT = 'pass the same short name in every instance of a consumer';
    ELSIF event_id IS NULL THEN
        RAISE EXCEPTION 'event_id is null'
            USING ERRCODE = '22023', HINT = 'pass the message''s Nats-Msg-Id';
    END IF;
    INSERT INTO "postrider".processed (event_id, consumer, slot)
    VALUES (event_id, consumer, "postrider".processed_slot(event_id))
    ON CONFLICT DO NOTHING;
    RETURN FOUND;
END
$body$;

COMMENT ON FUNCTION "postrider".claim(text, uuid)
    IS 'True the first time that a consumer claims an event.';
REVOKE ALL ON FUNCTION "postrider".claim(text, uuid) FROM PUBLIC;
GRANT EXECUTE ON FUNCTION "postrider".claim(text, uuid) TO postrider_consumer;
