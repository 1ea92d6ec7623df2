-- Removes the position of a relay that no instance leads (migrations/functions/forget_relay.sql).
--
-- $1 text relay, $2 text actor, $3 text reason, $4 bool discard its letters
-- Columns: outcome text (forgotten, unknown, led, letters), letters int8 (unresolved ones)
-- Rows: exactly one. Locks: the position's row, and those of its letters.
SELECT f.outcome, f.letters
FROM "postrider".forget_relay($1::text, $2::text, $3::text, $4::boolean) AS f
