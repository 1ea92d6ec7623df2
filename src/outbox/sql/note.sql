-- Tells `postrider status` why nothing is published just now, or that events flow again.
--
-- $1 text relay, $2 bigint term, $3 text null (null: events flow)
-- Rows: none come back; one is written when the term is still ours. Index: primary key.
-- Locks: the position's row.
UPDATE "postrider".position AS p SET note = $3::text
WHERE p.relay = $1::text AND p.term = $2::bigint
