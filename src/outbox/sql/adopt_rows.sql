-- Gives rows whose transaction number is of another cluster a number of this one, so that the relay
-- reads them (functions/adopt_rows.sql).
--
-- No parameters.
-- Columns: adopted int8 (rows)
-- Rows: exactly one. Index: outbox_tx_seq. Locks: those rows.
SELECT "postrider".adopt_rows() AS adopted
