-- The session in the way of those that have waited for a second or longer for a lock on a table or
-- sequence of the schema, and of instances of this relay that wait for any lock.
--
-- $1 text relay
-- Columns: pid int4 (0: a prepared transaction), usename text, application_name text, since text
--   null (as in find_blocking_sessions.sql), object text null (what is waited for), ours int8
--   (sessions of Postrider that wait behind it), others int8 (those of applications)
-- Rows: 0, or 1: the session with the most behind it that does not wait itself. Locks: none.
WITH RECURSIVE waiting AS MATERIALIZED (
    SELECT l.pid, min(c.relname::text) AS object,
           bool_or(coalesce(a.application_name, '') LIKE 'postrider/%') AS is_ours
    FROM pg_locks AS l
    JOIN pg_stat_activity AS a ON a.pid = l.pid AND a.datname = current_database()
    LEFT JOIN pg_class AS c ON c.oid = l.relation AND c.relnamespace = '"postrider"'::regnamespace
    WHERE NOT l.granted AND l.waitstart <= clock_timestamp() - interval '1 second'
      AND (c.oid IS NOT NULL
           OR a.application_name IN ('postrider/relay/' || $1::text, 'postrider/upkeep/' || $1::text))
    GROUP BY l.pid
), blocking (waiter, pid) AS (
    SELECT w.pid, unnest(pg_blocking_pids(w.pid)) FROM waiting AS w
    UNION
    SELECT b.waiter, unnest(pg_blocking_pids(b.pid)) FROM blocking AS b
)
SELECT b.pid, coalesce(a.usename::text, 'unknown') AS usename,
       coalesce(a.application_name, '') AS application_name,
       to_char(a.query_start AT TIME ZONE 'UTC', 'YYYY-MM-DD"T"HH24:MI:SS"Z"') AS since,
       min(w.object) AS object, count(*) FILTER (WHERE w.is_ours) AS ours,
       count(*) FILTER (WHERE NOT w.is_ours) AS others
FROM blocking AS b
JOIN waiting AS w ON w.pid = b.waiter
LEFT JOIN pg_stat_activity AS a ON a.pid = b.pid
WHERE NOT EXISTS (SELECT FROM pg_locks AS l WHERE l.pid = b.pid AND NOT l.granted)
GROUP BY b.pid, a.usename, a.application_name, a.query_start
ORDER BY count(*) DESC, b.pid
LIMIT 1
