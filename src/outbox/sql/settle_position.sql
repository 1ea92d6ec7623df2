-- Writes a settlement without letters: the position, and the lease, which it renews. When no row
-- changes the term is lost, and the holding ends.
--
-- $1 text relay, $2 bigint term, $3 text settled snapshot, $4 bigint its floor, $5 text target
-- snapshot, $6 bigint its floor, $7 bigint bookmark, $8 text stream name, $9 bigint null when the
-- stream was created (nanoseconds since 1970), $10 bigint last acked stream sequence, $11 uuid null
-- event stored there, $12 bigint stream floor, $13 float8 length of the lease in seconds,
-- $14 bigint events settled as published, those of this settlement included
-- Columns: fence int8 null: the floor of every snapshot taken after this transaction has committed
--   (read_page.sql says why). Null when the transaction already had a number: keep the last fence.
-- Rows: 1 when the term is still ours, else 0. Index: primary key. Locks: the position's row.
UPDATE "postrider".position AS p
SET snapshot = $3::text::pg_snapshot, floor = $4::bigint,
    target = $5::text::pg_snapshot, target_floor = $6::bigint,
    bookmark = $7::bigint, drawn = greatest(p.drawn, before.drawn),
    stream_name = $8::text, stream_created_ns = $9::bigint, stream_seq = $10::bigint,
    stream_event_id = $11::uuid, stream_floor = $12::bigint, published = $14::bigint,
    updated_at = clock_timestamp(),
    lease_until = clock_timestamp() + $13::float8 * interval '1 second'
FROM (SELECT "postrider".sequence_value('"postrider".outbox_seq_seq'::regclass) AS drawn,
             pg_current_xact_id_if_assigned() IS NULL AS is_fence
      OFFSET 0) AS before
WHERE p.relay = $1::text AND p.term = $2::bigint
RETURNING CASE WHEN before.is_fence THEN before.drawn END AS fence
