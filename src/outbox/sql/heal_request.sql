-- Asks a relay that waits for it to accept the stream as it is, and to heal it.
--
-- $1 text relay, $2 text channel that wakes the relay
-- Columns: none of use. Rows: exactly one. Index: primary key. Locks: the position's row.
WITH asked AS (
    UPDATE "postrider".position AS p SET heal_requested_at = clock_timestamp()
    WHERE p.relay = $1::text
    RETURNING p.relay
)
SELECT pg_notify($2::text, 'heal') AS notified FROM asked
