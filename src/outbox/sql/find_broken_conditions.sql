-- The broken conditions among those that the reader relies on, for `check`, `status` and `why`.
--
-- $1 text relay
-- Columns: code text, remedy text (repair, wake, warn or refuse), problem text, fix text
-- Rows: one a condition that does not hold. Index: primary keys; catalogs. Locks: ACCESS SHARE.
SELECT b.code, b.remedy, b.problem, b.fix FROM "postrider".broken_contract($1::text) AS b
