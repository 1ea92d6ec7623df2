-- Repairs what verify_conditions.sql has found, and puts the relays back to where all was well.
-- Then acquire again: the terms of all relays are raised.
--
-- No parameters.
-- Columns: renumbered int8 (rows with a new seq), put_back text[], uncertain text[] (relays)
-- Rows: exactly one. Index: outbox_tx_seq above the positions; reads more only after a fault.
-- Locks: the positions; ALTER SEQUENCE, which is waited for 100 ms at most (55P03 beyond). Inserts
-- wait from then until the repair is committed.
SELECT r.renumbered, r.put_back, r.uncertain FROM "postrider".repair_contract() AS r
