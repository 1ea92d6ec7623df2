-- The filter of a relay, recorded beside its position.
--
-- Why: a relay with a filter passes rows over that it does not publish. `postrider audit`,
--   `reconcile` and a healing account for each row, and need to see which rows those are. The relay
--   writes its filter down when it takes the lease (functions/note_filter.sql); a change is a row of
--   the audit.
--
-- Locks: ACCESS EXCLUSIVE on position, for as long as it takes to add a column without a rewrite.

SET LOCAL lock_timeout = '5s';

-- The filter as functions/takes.sql reads it; null takes every event.
ALTER TABLE "postrider".position ADD COLUMN filter jsonb;
