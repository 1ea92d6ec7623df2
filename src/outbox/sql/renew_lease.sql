-- Renews the lease, and stores how far the leader may publish. A returned row confirms the term:
-- without a row another instance leads.
--
-- $1 text relay, $2 bigint term, $3 float8 length of the lease in seconds, $4 bigint sent_to (the
-- leader hands over rows up to this seq only after this statement has succeeded)
-- Columns: sent_to int8, durable text null (when sent_to rises: sets synchronous_commit to local,
--   because the new bound has to survive a crash of the server)
-- Rows: 1 while the term is ours, else 0. Index: primary key. Locks: the position's row.
UPDATE "postrider".position AS p
SET lease_until = clock_timestamp() + $3::float8 * interval '1 second',
    sent_to = greatest(p.sent_to, $4::bigint)
WHERE p.relay = $1::text AND p.term = $2::bigint
RETURNING p.sent_to,
    CASE WHEN $4::bigint > coalesce((SELECT before.sent_to FROM "postrider".position AS before
                                     WHERE before.relay = $1::text), 0)
         THEN set_config('synchronous_commit', 'local', true) END AS durable
