-- The lease and the leader of a relay: for a standby, for `status` and for `check`.
--
-- A leader's session can end before its lease does. The end of the session counts only when the
-- server has not been restarted since, and when this role may see when the session began.
--
-- $1 text relay, $2 float8 seconds that a lease has at most
-- Columns: term int8, holder text, instance uuid null, process text null, left_seconds float8 null
--   (until the lease ends, $2 at most; null: it was released, never taken, or has expired),
--   is_overlong bool (the lease ends later than any instance can have written), backend_pid int4
--   null, session text (of the leader: alive | gone | unknown), locked bool (a program of a version
--   without leases leads: it holds an advisory lock)
-- Rows: 0 when the relay never ran, else 1. Index: primary key. Locks: ACCESS SHARE.
SELECT p.term, p.holder, p.instance, p.process,
       CASE WHEN p.lease_until > clock_timestamp()
            THEN date_part('epoch', least(p.lease_until, clock_timestamp() + $2::float8 * interval '1 second')
                                    - clock_timestamp()) END AS left_seconds,
       coalesce(p.lease_until > clock_timestamp() + $2::float8 * interval '1 second', false) AS is_overlong,
       p.backend_pid,
       CASE WHEN p.backend_pid IS NULL
                 OR p.server_start IS DISTINCT FROM pg_postmaster_start_time() THEN 'unknown'
            WHEN s.pid IS NULL THEN 'gone'
            WHEN s.backend_start IS NULL THEN 'unknown'
            WHEN s.backend_start = p.backend_start THEN 'alive'
            ELSE 'gone' END AS session,
       p.instance IS NULL AND p.term > 0 AND EXISTS (
           SELECT FROM pg_locks AS l
           WHERE l.locktype = 'advisory' AND l.objsubid = 1 AND l.granted
             AND l.database = (SELECT oid FROM pg_database WHERE datname = current_database())
             AND (l.classid::bigint << 32) | l.objid::bigint
                 = hashtextextended('"postrider" relay ' || p.relay, 0)) AS locked
FROM "postrider".position AS p
LEFT JOIN LATERAL pg_stat_get_activity(coalesce(p.backend_pid, 0)) AS s ON true
WHERE p.relay = $1::text
