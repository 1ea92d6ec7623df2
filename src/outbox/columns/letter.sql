-- The columns of a letter `l` in lists of letters.
--
-- id int8, relay text, state text, dead_at text null, first_failed_at text, next_attempt_at text
-- null (times as ISO 8601 in UTC), error_code text, error text, fingerprint text, attempts int4,
-- holds bool, seq int8, event_id uuid, event_type text, aggregate_type text null, aggregate_id text
-- null, payload_size int8
l.id, l.relay, l.state,
       to_char(l.dead_at AT TIME ZONE 'UTC', 'YYYY-MM-DD"T"HH24:MI:SS.US"Z"') AS dead_at,
       to_char(l.first_failed_at AT TIME ZONE 'UTC', 'YYYY-MM-DD"T"HH24:MI:SS.US"Z"') AS first_failed_at,
       to_char(l.next_attempt_at AT TIME ZONE 'UTC', 'YYYY-MM-DD"T"HH24:MI:SS.US"Z"') AS next_attempt_at,
       l.error_code, l.error, l.fingerprint, l.attempts, l.holds, l.seq, l.event_id, l.event_type,
       l.aggregate_type, l.aggregate_id, l.payload_size
