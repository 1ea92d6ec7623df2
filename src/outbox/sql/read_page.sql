-- The next page of events between two snapshots, in seq order, when no transaction is late.
--
-- New rows are those visible in C and not in P. Without late transactions
-- (find_late_transactions.sql) these have tx >= xmax(P), and all rows of such transactions have a
-- seq above the floor of P:
--
--   floor(P) is the `fence` of the last settle_position.sql or acquire_lease.sql that committed
--   before P was taken: the last seq drawn by anybody, read before the writing transaction got its
--   own number X. X had ended when P was taken, so xmax(P) > X; a transaction >= xmax(P) got its
--   number after X, hence after the fence was read, and draws seq after its number (column order of
--   outbox). The highest seq visible in P will NOT do: xmax(P) is the last ended number + 1, and
--   younger transactions that already run may hold smaller seqs.
--
-- Testing a row against a snapshot unpacks the snapshot, which costs. A row older than all open
-- transactions of C needs no test. A subquery chooses the rows: otherwise each of the eight leaves
-- would get the whole list of columns to prepare, for every page.
--
-- $1 text    P, the settled snapshot
-- $2 text    C, the target snapshot
-- $3 bigint  bookmark: settled inside P..C
-- $4 bigint  floor of P
-- $5 bigint  rows at most
-- $6 integer bytes of one payload at most that comes along
-- $7 bigint  highest seq that this page may read; only for a relay with a filter
-- Columns: those of columns/event.sql
-- Rows: 0 to $5. Index: primary key (seq, slot) of each leaf, merged. Locks: ACCESS SHARE.
SELECT o.* /* columns event $6::integer */
FROM (
    SELECT r.*
    FROM "postrider".outbox AS r
    WHERE r.seq > greatest($3::bigint, $4::bigint)
      AND true /* filter r up to 7 */
      AND r.tx >= (SELECT pg_snapshot_xmax($1::text::pg_snapshot))
      AND (r.tx < (SELECT pg_snapshot_xmin($2::text::pg_snapshot))
           OR pg_visible_in_snapshot(r.tx, (SELECT $2::text::pg_snapshot)))
    ORDER BY r.seq
    LIMIT $5::bigint
) AS o
ORDER BY o.seq
