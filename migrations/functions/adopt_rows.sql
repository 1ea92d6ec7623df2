-- adopt_rows(): gives rows of another cluster (foreign_rows in broken_contract.sql) the number of
-- this transaction and a new seq, so that they are read like rows that are inserted now. Returns
-- their number.

CREATE OR REPLACE FUNCTION "postrider".adopt_rows() RETURNS bigint
LANGUAGE plpgsql VOLATILE SECURITY DEFINER
SET search_path = pg_catalog, pg_temp SET row_security = off AS $body$
DECLARE
    -- First, so that it has its number before it draws a seq, as every insert has.
    own_tx CONSTANT xid8 := pg_current_xact_id();
    source record;
    adopted bigint := 0;
BEGIN
    FOR source IN
        SELECT o.seq, o.slot FROM "postrider".outbox AS o
        WHERE o.tx > own_tx AND o.tx >= pg_snapshot_xmax(pg_current_snapshot())
        ORDER BY o.seq, o.slot
    LOOP
        UPDATE "postrider".outbox AS o SET tx = own_tx, seq = DEFAULT
        WHERE o.seq = source.seq AND o.slot = source.slot;
        adopted := adopted + 1;
    END LOOP;
    RETURN adopted;
END
$body$;

COMMENT ON FUNCTION "postrider".adopt_rows()
    IS 'Takes over rows that were copied from another cluster.';
REVOKE ALL ON FUNCTION "postrider".adopt_rows() FROM PUBLIC;
GRANT EXECUTE ON FUNCTION "postrider".adopt_rows() TO postrider_relay;
