-- Releases the lease, so that a standby takes over at once.
--
-- $1 text relay, $2 bigint term, $3 text channel on which standbys listen
-- Columns: one, without use
-- Rows: 1 while the term is ours, else 0. Index: primary key. Locks: the position's row.
WITH released AS (
    UPDATE "postrider".position AS p SET lease_until = NULL
    WHERE p.relay = $1::text AND p.term = $2::bigint
    RETURNING p.relay
)
SELECT pg_notify($3::text, 'lease') AS notified FROM released
