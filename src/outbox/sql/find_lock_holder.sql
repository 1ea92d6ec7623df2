-- Finds the session that blocks others: sessions that have waited for at least a second for a lock
-- on a table or sequence of the schema, and instances of this relay that wait so for any lock.
--
-- $1 text relay
-- Columns: pid int4 (0: a prepared transaction), usename text, application_name text, since text
--   null (start of its last statement as ISO 8601; null where the role may not see it), object text
--   null (the table or sequence that is waited for), ours int8 (sessions of Postrider that wait
--   behind this one), others int8 (sessions of applications that do)
-- Rows: 0 or 1: of the sessions that do not wait themselves, the one that blocks most others.
--   Locks: none.
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
