-- What a relay takes, beside how far it is.
--
-- Why: a relay with a filter passes rows over that it does not publish. Whoever adds up what became
--   of each row (`postrider audit`, `reconcile`, a healing) has to know which. The relay writes its
--   filter down when it takes the lease (functions/note_filter.sql); a change is a row of the audit.
--
-- Locks: ACCESS EXCLUSIVE on position, for as long as it takes to add a column without a rewrite.

SET LOCAL lock_timeout = '5s';

-- As functions/takes.sql reads it. Null: every event.
ALTER TABLE "postrider".position ADD COLUMN filter jsonb;
