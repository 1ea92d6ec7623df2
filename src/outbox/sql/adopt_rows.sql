-- Gives each row with a transaction number of another cluster a number of this cluster, so that the
-- relay reads it (functions/adopt_rows.sql).
--
-- No parameters.
-- Columns: adopted int8 (rows)
-- Rows: exactly one. Index: outbox_tx_seq. Locks: those rows.
SELECT "postrider".adopt_rows() AS adopted
