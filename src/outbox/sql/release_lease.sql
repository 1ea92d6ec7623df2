-- Releases the lease, so that a standby takes over at once.
--
-- $1 text relay, $2 bigint term, $3 text channel on which those listen that wait
-- Columns: none of use
-- Rows: 1 while the term is ours, else 0. Index: primary key. Locks: that row.
WITH released AS (
    UPDATE "postrider".position AS p SET lease_until = NULL
    WHERE p.relay = $1::text AND p.term = $2::bigint
    RETURNING p.relay
)
SELECT pg_notify($3::text, 'lease') AS notified FROM released
