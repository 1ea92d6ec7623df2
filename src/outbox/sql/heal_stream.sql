-- Heals the stream: puts the position back to the last checkpoint at which the stream had lost
-- nothing, so that everything lost since is published again. Events that the stream still contains
-- are deduplicated by their ids. Published letters are tried again when the stream may have lost
-- their message. Events that the outbox no longer has are recorded as a loss.
--
-- Without such a checkpoint, as for a stream that was created anew, the position goes back to the
-- oldest row of the outbox. A checkpoint without a creation time of its stream does not count.
--
-- $1 text relay, $2 bigint term, $3 bigint null when the stream was created (nanoseconds since
-- 1970), $4 bigint last sequence of the stream
-- Columns: letters int8 null (tried again; null: nothing was done, the term is lost), lost int8
--   (upper bound of the published events that cannot be published again)
-- Rows: exactly one. Index: primary keys; reads the outbox and all letters of the relay. Locks: the
--   position's row and those letters.
WITH ours AS MATERIALIZED (
    SELECT p.relay, p.stream_name, p.stream_seq FROM "postrider".position AS p
    WHERE p.relay = $1::text AND p.term = $2::bigint
    FOR UPDATE
), chosen AS MATERIALIZED (
    SELECT c.* FROM ours JOIN "postrider".checkpoint AS c ON c.relay = ours.relay
    WHERE c.stream_created_ns = $3::bigint AND c.stream_seq <= $4::bigint
      AND c.system_id = (SELECT system_identifier FROM pg_control_system())
    ORDER BY c.taken_at DESC LIMIT 1
), gap AS MATERIALIZED (
    SELECT "postrider".unrestorable(ours.relay, $3::bigint, $4::bigint) AS events FROM ours
), put_back AS (
    UPDATE "postrider".position AS p
    SET snapshot = coalesce((SELECT snapshot FROM chosen), '3:3:'),
        floor = coalesce((SELECT floor FROM chosen), 0),
        target = coalesce((SELECT target FROM chosen), '3:3:'),
        target_floor = coalesce((SELECT target_floor FROM chosen), 0),
        bookmark = coalesce((SELECT bookmark FROM chosen), 0),
        published = coalesce((SELECT published FROM chosen), 0),
        stream_created_ns = $3::bigint, stream_seq = $4::bigint, stream_event_id = NULL,
        stream_floor = coalesce((SELECT stream_floor FROM chosen), 0),
        healing_since = clock_timestamp(), heal_requested_at = NULL,
        updated_at = clock_timestamp()
    FROM ours WHERE p.relay = ours.relay
), noted AS (
    INSERT INTO "postrider".loss (relay, stream_name, acknowledged_seq, last_seq, events_at_most)
    SELECT ours.relay, ours.stream_name, ours.stream_seq, $4::bigint, gap.events
    FROM ours CROSS JOIN gap WHERE gap.events > 0
), gone AS (
    DELETE FROM "postrider".checkpoint AS c USING ours
    WHERE c.relay = ours.relay
      AND (c.stream_created_ns IS DISTINCT FROM $3::bigint OR c.stream_seq > $4::bigint)
), again AS (
    UPDATE "postrider".letter AS l
    SET state = 'retrying', attempts = 0, next_attempt_at = clock_timestamp(), dead_at = NULL,
        resolution = NULL, resolved_by = NULL, resolved_at = NULL, stream_seq = NULL
    FROM ours
    WHERE l.relay = ours.relay AND l.resolution = 'published'
      AND (l.stream_seq IS NULL OR l.stream_seq > $4::bigint
           OR NOT EXISTS (SELECT FROM chosen))
      -- Publishing a letter moves no position. So a letter counts when it was published after the
      -- checkpoint, or up to a minute before. Without a checkpoint every letter counts whose row is
      -- read again, because rows with letters are passed over.
      AND CASE WHEN EXISTS (SELECT FROM chosen)
               THEN l.resolved_at >= (SELECT taken_at - interval '1 minute' FROM chosen)
               ELSE EXISTS (SELECT FROM "postrider".outbox AS o
                            WHERE o.seq = l.seq AND o.slot = l.slot) END
    RETURNING l.id
)
SELECT CASE WHEN EXISTS (SELECT FROM ours) THEN (SELECT count(*) FROM again) END AS letters,
       coalesce((SELECT events FROM gap), 0) AS lost
