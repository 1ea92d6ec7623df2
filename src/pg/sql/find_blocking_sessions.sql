-- Sessions that hold the locks for which another session waits now.
--
-- $1 int4 the waiting session
-- Columns: pid int4, usename text, application_name text, since text null (start of its statement
--   as ISO 8601; null where the role may not see it)
-- Rows: one for each session that blocks the waiting one, directly or through other sessions.
-- Sessions that do not wait for a lock themselves come first. Locks: none.
WITH RECURSIVE blocking (pid) AS (
    SELECT unnest(pg_blocking_pids($1::int4))
    UNION
    SELECT unnest(pg_blocking_pids(blocking.pid)) FROM blocking
)
SELECT blocking.pid, coalesce(a.usename::text, 'unknown') AS usename,
       coalesce(a.application_name, '') AS application_name,
       to_char(a.query_start AT TIME ZONE 'UTC', 'YYYY-MM-DD"T"HH24:MI:SS"Z"') AS since
FROM blocking
LEFT JOIN pg_stat_activity AS a ON a.pid = blocking.pid
WHERE blocking.pid <> $1::int4
ORDER BY a.wait_event_type IS NOT DISTINCT FROM 'Lock', blocking.pid
