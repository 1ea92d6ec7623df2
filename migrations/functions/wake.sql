-- wake(): the trigger of the leaves 4 to 7, which take rows while the relay sleeps. It wakes the
-- relay, or closes the gate that a relay has left open when it died asleep: later rows then go to
-- the leaves without a trigger.
--
-- A transaction that has executed NOTIFY cannot be prepared. So where the server allows two-phase
-- commit nothing is sent, and the relay polls more often, unless the database says `ALTER DATABASE
-- ... SET postrider.wake = 'always'`.
--
-- SECURITY DEFINER, so that producers need no right to set the gate.

CREATE OR REPLACE FUNCTION "postrider".wake() RETURNS trigger
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $body$
DECLARE
    gate CONSTANT bigint := "postrider".sequence_value('"postrider".gate'::regclass);
BEGIN
    IF "postrider".sequence_value('"postrider".wake_until'::regclass)
           > date_part('epoch', clock_timestamp()) THEN
        IF current_setting('max_prepared_transactions') = '0'
           OR current_setting('postrider.wake', true) = 'always' THEN
            PERFORM pg_notify('postrider_' || TG_TABLE_SCHEMA, '');
        END IF;
    ELSIF gate >= 4 THEN
        PERFORM setval('"postrider".gate'::regclass, gate & 3);
    END IF;
    RETURN NEW;
END
$body$;

COMMENT ON FUNCTION "postrider".wake() IS 'Trigger of the outbox: wakes a sleeping relay.';
REVOKE ALL ON FUNCTION "postrider".wake() FROM PUBLIC;
