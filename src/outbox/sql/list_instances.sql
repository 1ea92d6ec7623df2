-- Sessions of instances of a relay, leaders and standbys. A session with another application_name,
-- set in database.url or by a pooler, is not found.
--
-- $1 text relay
-- Columns: pid int4, application_name text
-- Rows: one a session, at most 10. Locks: none.
SELECT a.pid, a.application_name
FROM pg_stat_activity AS a
WHERE a.datname = current_database()
  AND a.application_name IN ('postrider/relay/' || $1::text, 'postrider/upkeep/' || $1::text)
ORDER BY a.application_name, a.pid
LIMIT 10
