-- The position of one relay, for `postrider status`. Off the data path.
--
-- $1 text relay
-- Columns: term int8, holder text, acquired_at text, updated_at text (ISO 8601, UTC),
--   updated_seconds_ago float8, stream_name text null, stream_created_ns int8 null, stream_seq
--   int8, note text null (why nothing is published now, in the words of the leader), report text
--   null (the leader's findings as JSON; null when the last report is of an earlier term),
--   silent_seconds float8 (since the leader reported; without a report of this term, since it
--   acquired the lease)
-- Rows: 1, or 0 when the relay has never run. Index: primary key. Locks: ACCESS SHARE.
SELECT p.term, p.holder,
       to_char(p.acquired_at AT TIME ZONE 'UTC', 'YYYY-MM-DD"T"HH24:MI:SS"Z"') AS acquired_at,
       to_char(p.updated_at AT TIME ZONE 'UTC', 'YYYY-MM-DD"T"HH24:MI:SS"Z"') AS updated_at,
       date_part('epoch', clock_timestamp() - p.updated_at) AS updated_seconds_ago,
       p.stream_name, p.stream_created_ns, p.stream_seq, p.note,
       CASE WHEN p.report ->> 'term' = p.term::text THEN p.report::text END AS report,
       date_part('epoch', clock_timestamp()
                          - CASE WHEN p.report ->> 'term' = p.term::text
                                 THEN p.reported_at ELSE p.acquired_at END) AS silent_seconds
FROM "postrider".position AS p
WHERE p.relay = $1::text
