-- Conditions that the relay's reading of the outbox relies on and that do not hold, for `check`,
-- `status` and `why` (functions/broken_contract.sql).
--
-- $1 text relay
-- Columns: code text, remedy text (repair or wake: the relay repairs it; warn: an operator should
--   know; refuse: an operator has to act first), problem text, fix text
-- Rows: one for each condition that does not hold. Index: primary keys; catalogs. Locks: ACCESS
-- SHARE.
SELECT b.code, b.remedy, b.problem, b.fix FROM "postrider".broken_contract($1::text) AS b
