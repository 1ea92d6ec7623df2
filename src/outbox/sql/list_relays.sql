-- All relays that have a position, with their leader and lag. Off the data path.
--
-- $1 bigint letters to count at most
-- Columns: relay text, is_led bool, holder text (the last one), idle_seconds float8 (since it last
--   wrote anything), behind_at_most int8 (an upper bound: seqs drawn and not settled), letters int8
--   (unresolved ones, exact up to $1), stream_name text null
-- Rows: at most 1,000, by name. Index: primary key, letter_unresolved_state. Locks: ACCESS SHARE.
SELECT p.relay, "postrider".is_led(p.relay) AS is_led, p.holder,
       date_part('epoch', clock_timestamp()
                          - greatest(p.updated_at, p.acquired_at, p.reported_at)) AS idle_seconds,
       greatest(0, "postrider".sequence_value('"postrider".outbox_seq_seq'::regclass)
                   - greatest(p.floor, p.bookmark)) AS behind_at_most,
       (SELECT count(*) FROM (
            SELECT FROM "postrider".letter AS l
            WHERE l.relay = p.relay AND l.resolved_at IS NULL
              AND l.state IN ('dead', 'held', 'retrying')
            LIMIT $1::bigint) AS counted) AS letters,
       p.stream_name
FROM "postrider".position AS p
ORDER BY p.relay
LIMIT 1000
