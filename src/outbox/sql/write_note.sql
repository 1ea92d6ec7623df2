-- Writes the leader's report for `postrider status`, and the reason why nothing is published, or
-- that events flow.
--
-- $1 text relay, $2 bigint term, $3 text null the reason (null: events flow), $4 text the report as
-- JSON, $5 text null kind of the reason
-- Rows: none are returned; one is written when the term is still ours. Index: primary key.
-- Locks: the position's row.
UPDATE "postrider".position AS p
SET note = $3::text, gate_kind = $5::text, report = $4::text::jsonb, reported_at = clock_timestamp()
WHERE p.relay = $1::text AND p.term = $2::bigint
