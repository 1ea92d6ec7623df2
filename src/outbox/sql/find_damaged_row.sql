-- The seq of the first row whose block cannot be read. Run it when find_next_row.sql fails.
--
-- $1 bigint bookmark, $2 bigint floor of the settled snapshot, $3 text null late transactions, as
-- find_late_transactions.sql returned them
-- Columns: seq int8 null (null: every block can be read)
-- Rows: exactly one. Index: primary key of each leaf, outbox_tx_seq for late transactions.
-- Locks: ACCESS SHARE.
SELECT "postrider".next_damaged($1::bigint, $2::bigint, coalesce($3::text, '{}')::xid8[]) AS seq
