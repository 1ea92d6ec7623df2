-- Deletes consumers' dedup keys (of postrider.claim) that are older than the retention. Call it
-- about every hour.
--
-- $1 float8 retention in seconds (1 hour to 90 days)
-- Columns: leaves int4 (partitions emptied), timeless int8 (rows deleted whose event id contains no
--   time, at most 10,000 a call)
-- Rows: exactly one. Locks: ACCESS EXCLUSIVE on a partition that nobody uses, without waiting.
SELECT m.leaves, m.timeless
FROM "postrider".processed_maintain(make_interval(secs => $1::float8)) AS m
