-- Writes what became of letters that the relay has loaded. Writing the same records again changes
-- nothing: a resolved letter stays resolved.
--
-- $1 text relay, $2 bigint term, $3 bigint[] id, $4 text[] change (published | dead | retrying |
-- held | seen), $5 bigint[] stream sequence, $6 text[] error_code, $7 text[] error, $8 integer[]
-- attempts, $9 boolean[] holds (a dead letter blocks its key), $10 float8[] wait until the next
-- attempt in seconds (by this server's clock), $11 boolean[] load_now (the relay loads the key
-- again at once), $12 bigint[] mark that was read (next_attempt_at in microseconds since 2000): a
-- letter with another mark is left alone; null: any mark, $13 bigint dead letters to name at most
-- Columns: ours int8 (1 when the term is still ours, else 0 and nothing was written), and of a
--   letter that this statement made dead: id int8 null, event_id uuid null, event_type,
--   aggregate_type, aggregate_id text null (their first 200 characters), error_code text null,
--   error text null (its first 500 characters)
-- Rows: one for each such letter, $13 at most; one with nulls when there is no such letter. Index:
--   primary keys. Locks: the position's row (shared) and the letters' rows.
WITH ours AS MATERIALIZED (
    SELECT p.relay FROM "postrider".position AS p
    WHERE p.relay = $1::text AND p.term = $2::bigint FOR SHARE
), changed AS (
    UPDATE "postrider".letter AS l
    SET state = CASE WHEN r.change IN ('dead', 'retrying', 'held') THEN r.change ELSE l.state END,
        resolution = CASE r.change WHEN 'published' THEN 'published' ELSE l.resolution END,
        resolved_by = CASE r.change WHEN 'published' THEN 'relay' ELSE l.resolved_by END,
        resolved_at = CASE r.change WHEN 'published' THEN clock_timestamp() ELSE l.resolved_at END,
        stream_seq = CASE r.change WHEN 'published' THEN NULLIF(r.stream_seq, 0)
                                   ELSE l.stream_seq END,
        dead_at = CASE r.change WHEN 'dead' THEN clock_timestamp()
                                WHEN 'retrying' THEN NULL ELSE l.dead_at END,
        holds = CASE r.change WHEN 'dead' THEN r.holds ELSE l.holds END,
        attempts = CASE WHEN r.change IN ('dead', 'retrying') THEN r.attempts ELSE l.attempts END,
        error_code = CASE WHEN r.change IN ('dead', 'retrying') THEN r.error_code
                          ELSE l.error_code END,
        error = CASE WHEN r.change IN ('dead', 'retrying') THEN r.error ELSE l.error END,
        fingerprint = CASE WHEN r.change IN ('dead', 'retrying')
            THEN r.error_code || '-' || substr(md5(regexp_replace(r.error, '[0-9]+|"[^"]*"', '#', 'g')), 1, 8)
            ELSE l.fingerprint END,
        last_failed_at = CASE WHEN r.change IN ('dead', 'retrying') THEN clock_timestamp()
                              ELSE l.last_failed_at END,
        next_attempt_at = CASE WHEN r.load_now THEN clock_timestamp()
                               WHEN r.change = 'retrying'
                                   THEN clock_timestamp() + r.wait * interval '1 second' END
    FROM ours
    CROSS JOIN unnest($3::bigint[], $4::text[], $5::bigint[], $6::text[], $7::text[],
                      $8::integer[], $9::boolean[], $10::float8[], $11::boolean[], $12::bigint[])
        AS r (id, change, stream_seq, error_code, error, attempts, holds, wait, load_now, seen)
    WHERE l.id = r.id AND l.relay = ours.relay
      AND (r.change = 'seen' OR l.resolved_at IS NULL)
      AND (r.seen IS NULL
           OR r.seen = (date_part('epoch', l.next_attempt_at - '2000-01-01Z') * 1000000)::bigint)
    RETURNING r.change, l.id, l.event_id, l.event_type, l.aggregate_type, l.aggregate_id,
              l.error_code, l.error
), dead AS (
    SELECT * FROM changed WHERE changed.change = 'dead' LIMIT $13::bigint
)
SELECT (SELECT count(*) FROM ours) AS ours, dead.id, dead.event_id,
       left(dead.event_type, 200) AS event_type, left(dead.aggregate_type, 200) AS aggregate_type,
       left(dead.aggregate_id, 200) AS aggregate_id, dead.error_code, left(dead.error, 500) AS error
FROM (SELECT) AS always
LEFT JOIN dead ON true
