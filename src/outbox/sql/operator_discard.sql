-- Gives dead letters up for good: one batch, with its rows of the audit. The time of the next attempt
-- has the relay look at their keys, and let go what is held behind them.
--
-- $1 text relay; each of the next, when not null, narrows the choice: $2 text event type,
-- $3 and $4 text aggregate type and id, $5 text error code, $6 text fingerprint,
-- $7 timestamptz dead since then at the earliest, $8 timestamptz at the latest, $9 bigint[] ids
-- $10 bigint only above this seq, $11 bigint rows at most, $12 text actor, $13 text null reason,
-- $14 text channel that wakes the relay
-- Columns: ids int8[] (of the letters that this changed), last_seq int8 null (of the last one)
-- Rows: exactly one. Index: as operator_count.sql, then the primary key.
-- Locks: the letters' rows, in the order of their seq, so that two operators wait for each other
-- and never in a circle. Who comes second finds the rows changed, and takes the next ones.
WITH chosen AS MATERIALIZED (
    SELECT l.id, l.next_attempt_at
    FROM "postrider".letter AS l
    WHERE (l.relay = $1::text) IS TRUE AND (l.state = 'dead') IS TRUE AND l.resolved_at IS NULL
      -- Once more as what an index can be used for: relay and state unless there are ids, state unless
      -- there is a key. Without statistics the planner would take one index for as good as another.
      AND ($9::bigint[] IS NOT NULL OR l.relay = $1::text)
      AND ($9::bigint[] IS NOT NULL OR $4::text IS NOT NULL OR l.state = 'dead')
      AND ($2::text IS NULL OR l.event_type = $2::text)
      AND ($4::text IS NULL
           OR hashtextextended(l.aggregate_id, 0) = hashtextextended($4::text, 0)
              AND l.aggregate_type = $3::text AND l.aggregate_id = $4::text)
      AND ($5::text IS NULL OR l.error_code = $5::text)
      AND ($6::text IS NULL OR l.fingerprint = $6::text)
      AND ($7::timestamptz IS NULL OR l.dead_at >= $7::timestamptz)
      AND ($8::timestamptz IS NULL OR l.dead_at <= $8::timestamptz)
      AND ($9::bigint[] IS NULL OR l.id = ANY ($9::bigint[]))
      AND l.seq > $10::bigint
    ORDER BY l.seq
    LIMIT $11::bigint
    FOR UPDATE
), changed AS (
    UPDATE "postrider".letter AS l
    SET resolution = 'discarded', resolved_by = $12::text, resolved_at = clock_timestamp(),
        reason = $13::text, next_attempt_at = clock_timestamp()
    FROM chosen
    WHERE l.id = chosen.id AND l.resolved_at IS NULL AND (l.state = 'dead') IS TRUE
    RETURNING l.id, l.relay, l.seq, l.event_id,
              jsonb_build_object('resolution', NULL, 'resolved_by', NULL, 'resolved_at', NULL,
                                 'reason', NULL, 'next_attempt_at', chosen.next_attempt_at) AS before,
              jsonb_build_object('resolution', l.resolution, 'resolved_by', l.resolved_by,
                                 'resolved_at', l.resolved_at, 'reason', l.reason,
                                 'next_attempt_at', l.next_attempt_at) AS after
), recorded AS (
    INSERT INTO "postrider".audit (
        actor, action, reason, relay, letter_id, seq, event_id, before, after)
    SELECT $12::text, 'discard', $13::text, c.relay, c.id, c.seq, c.event_id, c.before, c.after
    FROM changed AS c
    ORDER BY c.seq
)
SELECT coalesce(array_agg(c.id ORDER BY c.seq), '{}') AS ids, max(c.seq) AS last_seq,
       (SELECT pg_notify($14::text, 'letters') WHERE EXISTS (SELECT FROM changed)) AS notified
FROM changed AS c
