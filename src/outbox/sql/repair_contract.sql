-- Repairs the conditions that verify_conditions.sql reports, and puts the relays back to where all
-- of them last held. Acquire the lease again afterwards: the terms of all relays increase.
--
-- No parameters.
-- Columns: renumbered int8 (rows with a new seq), put_back text[], uncertain text[] (relays)
-- Rows: exactly one. Index: outbox_tx_seq above the positions; reads more only after a fault.
-- Locks: the positions; ALTER SEQUENCE, which is waited for 100 ms at most (55P03 beyond). Inserts
-- wait from then until the repair is committed.
SELECT r.renumbered, r.put_back, r.uncertain FROM "postrider".repair_contract() AS r
