-- Accepts the stream as it is, at the request of an operator: `postrider reconcile` has made
-- letters of all lost events that the outbox has. Events that the outbox no longer has are recorded
-- as a loss.
--
-- $1 text relay, $2 bigint term, $3 bigint null when the stream was created (nanoseconds since
-- 1970), $4 bigint last sequence of the stream
-- Columns: letters int8 null (0; null: nothing was done, because no operator requested it or the
--   term is lost), lost int8 (upper bound of the published events that cannot be published again)
-- Rows: exactly one. Index: primary key; reads the outbox when an operator has requested it.
-- Locks: the position's row.
WITH asked AS MATERIALIZED (
    SELECT p.relay, p.stream_name, p.stream_seq FROM "postrider".position AS p
    WHERE p.relay = $1::text AND p.term = $2::bigint AND p.heal_requested_at IS NOT NULL
    FOR UPDATE
), gap AS MATERIALIZED (
    SELECT "postrider".unrestorable(asked.relay, $3::bigint, $4::bigint) AS events FROM asked
), accepted AS (
    UPDATE "postrider".position AS p
    SET stream_seq = $4::bigint, stream_event_id = NULL,
        stream_floor = CASE WHEN p.stream_created_ns = $3::bigint
                            THEN least(p.stream_floor, $4::bigint) ELSE 0 END,
        published = p.published - gap.events,
        stream_created_ns = $3::bigint, heal_requested_at = NULL, updated_at = clock_timestamp()
    FROM asked CROSS JOIN gap
    WHERE p.relay = asked.relay
), noted AS (
    INSERT INTO "postrider".loss (relay, stream_name, acknowledged_seq, last_seq, events_at_most)
    SELECT asked.relay, asked.stream_name, asked.stream_seq, $4::bigint, gap.events
    FROM asked CROSS JOIN gap WHERE gap.events > 0
), gone AS (
    DELETE FROM "postrider".checkpoint AS c USING asked
    WHERE c.relay = asked.relay
      AND (c.stream_created_ns IS DISTINCT FROM $3::bigint OR c.stream_seq > $4::bigint)
)
SELECT CASE WHEN EXISTS (SELECT FROM asked) THEN 0::bigint END AS letters,
       coalesce((SELECT events FROM gap), 0) AS lost
