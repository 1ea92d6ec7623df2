-- The highest seq of the outbox that was drawn. A relay with a filter reads no further: no row that
-- is visible in an earlier snapshot has a higher seq.
--
-- Columns: ceiling int8
-- Rows: exactly one. Locks: none.
SELECT "postrider".sequence_value('"postrider".outbox_seq_seq'::regclass) AS ceiling
