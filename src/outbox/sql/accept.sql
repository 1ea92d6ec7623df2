-- Accepts the stream as it is, because an operator has asked for it: `postrider reconcile` has made
-- letters of all that it lost.
--
-- $1 text relay, $2 bigint term, $3 text stream created, $4 bigint last sequence of the stream
-- Columns: letters int8 null (0; null: nothing was done, because nobody asked or the term is lost)
-- Rows: exactly one. Index: primary key. Locks: the position's row.
WITH accepted AS (
    UPDATE "postrider".position AS p
    SET stream_seq = $4::bigint, stream_event_id = NULL,
        stream_floor = CASE WHEN p.stream_created = $3::text
                            THEN least(p.stream_floor, $4::bigint) ELSE 0 END,
        stream_created = $3::text, heal_requested_at = NULL, updated_at = clock_timestamp()
    WHERE p.relay = $1::text AND p.term = $2::bigint AND p.heal_requested_at IS NOT NULL
    RETURNING p.relay
), gone AS (
    DELETE FROM "postrider".checkpoint AS c USING accepted
    WHERE c.relay = accepted.relay AND (c.stream_created <> $3::text OR c.stream_seq > $4::bigint)
)
SELECT CASE WHEN EXISTS (SELECT FROM accepted) THEN 0::bigint END AS letters
