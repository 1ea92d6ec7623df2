-- Who has the right to run one relay.
--
-- $1 text relay
-- Columns: pid int4, application_name text null, client text null, since timestamptz null
--   (start of that session; null where the role may not see other sessions)
-- Rows: 0 or 1. Locks: none; reads pg_locks.
SELECT l.pid, a.application_name, host(a.client_addr) AS client, a.backend_start AS since
FROM (SELECT hashtextextended('"postrider" relay ' || $1::text, 0) AS key OFFSET 0) AS wanted
JOIN pg_locks AS l
    ON l.locktype = 'advisory' AND l.objsubid = 1 AND l.granted
    AND l.database = (SELECT oid FROM pg_database WHERE datname = current_database())
    AND l.classid::bigint = (wanted.key >> 32) & 4294967295
    AND l.objid::bigint = wanted.key & 4294967295
LEFT JOIN pg_stat_activity AS a ON a.pid = l.pid
