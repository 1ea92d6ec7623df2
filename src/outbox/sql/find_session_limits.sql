-- The number of sessions that this user may have by each limit, and the current number. A superuser
-- has no limits. Postgres hides the kind of another user's session. Such a session counts when it
-- has a database and a user.
--
-- Columns: what text (the limit, for a person), sessions_max int8, sessions int8
-- Rows: 0 to 3. Locks: none.
SELECT limits.what, limits.sessions_max, limits.sessions
FROM pg_roles AS r
JOIN pg_database AS d ON d.datname = current_database()
CROSS JOIN LATERAL (
    SELECT count(*) FILTER (WHERE a.usename = r.rolname) AS of_role,
           count(*) FILTER (WHERE a.datname = d.datname) AS of_database,
           count(*) AS of_all
    FROM pg_stat_activity AS a
    WHERE coalesce(a.backend_type = 'client backend', a.datname IS NOT NULL AND a.usename IS NOT NULL)
    ) AS now
CROSS JOIN LATERAL (VALUES
    (format('CONNECTION LIMIT of role %s', r.rolname), r.rolconnlimit::bigint, now.of_role),
    (format('CONNECTION LIMIT of database %s', d.datname), d.datconnlimit::bigint, now.of_database),
    ('max_connections of the server, less what is reserved',
     current_setting('max_connections')::bigint
         - current_setting('superuser_reserved_connections')::bigint
         - coalesce(current_setting('reserved_connections', true), '0')::bigint,
     now.of_all)) AS limits (what, sessions_max, sessions)
WHERE r.rolname = current_user AND NOT r.rolsuper AND limits.sessions_max >= 0
