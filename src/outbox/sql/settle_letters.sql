-- Writes the position and the letters that it passes over, in one statement. A second run of the
-- same settlement changes nothing.
--
-- $1 text relay, $2 bigint term, $3 text settled snapshot, $4 bigint its floor, $5 text target
-- snapshot, $6 bigint its floor, $7 bigint bookmark, $8 text stream name, $9 bigint null when the
-- stream was created (nanoseconds since 1970), $10 bigint last acked stream sequence, $11 uuid null
-- event stored there, $12 bigint stream floor, $13 float8 length of the lease in seconds,
-- $14 bigint events settled as published, those of this settlement included
-- $15 bigint payload bytes at most: a larger payload stays in the outbox. A payload that is larger
--   even in its compressed form is not unpacked to be measured, and the letter has its compressed
--   size.
-- $16 bigint dead letters to name at most
-- $17 to $23 the letters, an array for each column of `failed`: bigint[] seq, text[] state (dead |
--   retrying | held), boolean[] holds (a dead letter blocks its key), text[] error_code, text[]
--   error, integer[] attempts, float8[] null or wait in seconds until the mark (by this server's
--   clock)
-- Columns: settled int8 (1 when the term is still ours, else 0 and nothing was written), and of a
--   dead letter: id int8 null, event_id uuid null, event_type, aggregate_type, aggregate_id text
--   null (their first 200 characters), error_code text null, error text null (its first 500
--   characters)
-- Rows: one for each dead letter of this settlement, $16 at most; one with nulls when there is no
--   dead letter. A second run returns the same letters as the first, whose answer may have been
--   lost.
-- Index: primary key of position, of each leaf one probe an event, (relay, seq) of letter.
-- Locks: the position's row and the new rows.
WITH settled AS (
    UPDATE "postrider".position AS p
    SET snapshot = $3::text::pg_snapshot, floor = $4::bigint,
        target = $5::text::pg_snapshot, target_floor = $6::bigint,
        bookmark = $7::bigint, stream_name = $8::text, stream_created_ns = $9::bigint,
        stream_seq = $10::bigint, stream_event_id = $11::uuid, stream_floor = $12::bigint,
        published = $14::bigint,
        updated_at = clock_timestamp(),
        lease_until = clock_timestamp() + $13::float8 * interval '1 second',
        drawn = greatest(p.drawn,
            "postrider".sequence_value('"postrider".outbox_seq_seq'::regclass))
    WHERE p.relay = $1::text AND p.term = $2::bigint
    RETURNING p.relay
), lettered AS (
    INSERT INTO "postrider".letter (
        relay, state, holds, attempts, error_code, error, fingerprint, dead_at, next_attempt_at,
        payload_size, payload_omitted, tx, seq, slot, event_version, occurred_at, event_id,
        event_type, kind, aggregate_type, aggregate_id, aggregate_version, source, subject,
        content_type, headers, correlation_id, causation_id, actor, payload, payload_binary)
    SELECT settled.relay, failed.state, failed.holds, failed.attempts, failed.error_code,
           failed.error, failed.error_code || '-'
               || substr(md5(regexp_replace(failed.error, '[0-9]+|"[^"]*"', '#', 'g')), 1, 8),
           CASE WHEN failed.state = 'dead' THEN clock_timestamp() END,
           clock_timestamp() + failed.wait * interval '1 second',
           coalesce(o.payload_size, 0), failed.error_code = 'unreadable_row'
               OR coalesce(o.payload_size > $15::bigint, false), o.tx,
           o.seq, o.slot, o.event_version, o.occurred_at, o.event_id, o.event_type, o.kind,
           o.aggregate_type, o.aggregate_id, o.aggregate_version, o.source, o.subject,
           o.content_type, o.headers, o.correlation_id, o.causation_id, o.actor,
           CASE WHEN o.payload_size <= $15::bigint THEN o.payload END,
           CASE WHEN o.payload_size <= $15::bigint THEN o.payload_binary END
    FROM settled
    CROSS JOIN unnest($17::bigint[], $18::text[], $19::boolean[], $20::text[], $21::text[],
                      $22::integer[], $23::float8[])
        AS failed (seq, state, holds, error_code, error, attempts, wait)
    CROSS JOIN LATERAL (
        (SELECT l.tx, l.seq, l.slot, l.event_version, l.occurred_at, l.event_id, l.event_type,
                l.kind, l.aggregate_type, l.aggregate_id, l.aggregate_version, l.source, l.subject,
                l.content_type, l.headers, l.correlation_id, l.causation_id, l.actor, l.payload,
                l.payload_binary,
                CASE WHEN pg_column_compression(l.payload) IS NOT NULL
                          AND pg_column_size(l.payload) <= $15::bigint
                     THEN octet_length(l.payload::text)
                     WHEN l.payload IS NOT NULL THEN pg_column_size(l.payload)
                     ELSE octet_length(l.payload_binary) END::bigint AS payload_size
         FROM "postrider".outbox AS l
         WHERE failed.error_code <> 'unreadable_row'
           AND l.seq >= failed.seq AND l.seq <= failed.seq
         ORDER BY l.seq
         LIMIT 1)
        UNION ALL
        -- Of a damaged row only the readable columns are copied.
        (SELECT s.tx, s.seq, s.slot, s.event_version, s.occurred_at, s.event_id, s.event_type,
                s.kind, s.aggregate_type, s.aggregate_id, s.aggregate_version, s.source, s.subject,
                s.content_type, s.headers, s.correlation_id, s.causation_id, s.actor, s.payload,
                s.payload_binary, s.payload_size
         FROM (SELECT failed.seq WHERE failed.error_code = 'unreadable_row') AS damaged
         CROSS JOIN LATERAL "postrider".salvage(damaged.seq) AS s)) AS o
    ORDER BY failed.seq
    ON CONFLICT (relay, seq) DO NOTHING
    RETURNING id, state, event_id, event_type, aggregate_type, aggregate_id, error_code, error
), dead AS (
    SELECT new.id, new.event_id, new.event_type, new.aggregate_type, new.aggregate_id,
           new.error_code, new.error
    FROM lettered AS new
    WHERE new.state = 'dead'
    UNION ALL
    SELECT old.id, old.event_id, old.event_type, old.aggregate_type, old.aggregate_id,
           old.error_code, old.error
    FROM settled
    CROSS JOIN unnest($17::bigint[]) AS failed (seq)
    CROSS JOIN LATERAL (
        SELECT l.* FROM "postrider".letter AS l
        WHERE l.relay = settled.relay AND l.seq = failed.seq AND l.state = 'dead'
        OFFSET 0) AS old
    LIMIT $16::bigint
)
SELECT (SELECT count(*) FROM settled) AS settled, dead.id, dead.event_id,
       left(dead.event_type, 200) AS event_type, left(dead.aggregate_type, 200) AS aggregate_type,
       left(dead.aggregate_id, 200) AS aggregate_id, dead.error_code, left(dead.error, 500) AS error
FROM (SELECT) AS always
LEFT JOIN dead ON true
