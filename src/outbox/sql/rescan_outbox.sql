-- Accepts a database that was restored into another cluster, so that the relay publishes its
-- unsettled rows. Such a database is recognised by the system identifier that its positions were
-- made with. Acquire the lease again afterwards. The duration grows with the retained rows: run
-- `SET LOCAL statement_timeout = 0` before it in the same transaction.
--
-- $1 text relay, $2 bigint term
-- Columns: pending int8 null (rows to publish; null: the term is lost)
-- Rows: exactly one. Index: none, it rewrites the outbox.
-- Locks: the positions, ROW EXCLUSIVE on the outbox: writers go on.
SELECT "postrider".rescan($1::text, $2::bigint) AS pending
