-- Asks a relay that says that it waits for it (in its note) to accept the stream as it is. One that
-- does not wait is not asked, or it would accept a loss of later without anybody knowing.
--
-- $1 text relay, $2 text channel that wakes the relay
-- Columns: none of use
-- Rows: 0 or 1. Index: primary key. Locks: the position's row.
WITH asked AS (
    UPDATE "postrider".position AS p SET heal_requested_at = clock_timestamp()
    WHERE p.relay = $1::text AND p.note LIKE 'broker_regressed%'
    RETURNING p.relay
)
SELECT pg_notify($2::text, 'heal') AS notified FROM asked
