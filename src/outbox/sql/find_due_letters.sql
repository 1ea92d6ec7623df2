-- Letters whose mark is due, and the time until the next mark.
--
-- A due mark makes the relay load the letters of that key (load_letters.sql). A mark further away
-- than the longest wait of the retry policy was set before the database's clock was put back. Such
-- a mark counts as due too.
--
-- $1 text     relay
-- $2 bigint   letters at most
-- $3 float8   the longest wait of the retry policy, in seconds
-- Columns: next_in float8 null (seconds until the first mark that is still in the future; on every
--   row), id int8 null (null: no letter is due, and this is the only row), at int8 (next_attempt_at
--   in microseconds since 2000), aggregate_type text null, aggregate_id text null
-- Rows: 1 to $2, those that have waited longest first. Index: letter_due. Locks: ACCESS SHARE.
SELECT (SELECT date_part('epoch', n.next_attempt_at - now()) FROM "postrider".letter AS n
        WHERE n.relay = $1::text AND n.next_attempt_at > now()
        ORDER BY n.next_attempt_at, n.seq LIMIT 1) AS next_in,
       due.id,
       (date_part('epoch', due.next_attempt_at - '2000-01-01Z') * 1000000)::bigint AS at,
       due.aggregate_type, due.aggregate_id
FROM (SELECT 1) AS one
LEFT JOIN LATERAL (
    (SELECT l.id, l.next_attempt_at, l.aggregate_type, l.aggregate_id
     FROM "postrider".letter AS l
     WHERE l.relay = $1::text AND l.next_attempt_at <= now()
     ORDER BY l.next_attempt_at, l.seq LIMIT $2::bigint)
    UNION ALL
    (SELECT l.id, l.next_attempt_at, l.aggregate_type, l.aggregate_id
     FROM "postrider".letter AS l
     WHERE l.relay = $1::text AND l.next_attempt_at > now() + $3::float8 * interval '1 second'
     ORDER BY l.next_attempt_at, l.seq LIMIT $2::bigint)
    LIMIT $2::bigint) AS due ON true
