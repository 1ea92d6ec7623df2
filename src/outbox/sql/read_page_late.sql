-- The next page of events between two snapshots, in seq order, when transactions are late.
--
-- P is the settled snapshot, C the target snapshot. The page has the rows that read_page.sql would
-- read, and the rows of the late transactions. These were open in P and have ended in C, and their
-- rows may have any seq above the bookmark.
--
-- $1 text    P
-- $2 text    C
-- $3 bigint  bookmark: settled inside P..C
-- $4 bigint  floor of P
-- $5 bigint  rows at most
-- $6 integer bytes of one payload at most that comes along
-- $7 text    late transactions, as find_late_transactions.sql returned them
-- $8 bigint  highest seq that this page may read; only for a relay with a filter
-- Columns: those of columns/event.sql
-- Rows: 0 to $5. Index: outbox_tx_seq for each late transaction, primary key for the rest.
-- Locks: ACCESS SHARE.
SELECT o.* /* columns event $6::integer */
FROM (
    (SELECT late_row.*
     FROM unnest((SELECT $7::text::xid8[])) AS late (tx)
     CROSS JOIN LATERAL (
         SELECT l.* FROM "postrider".outbox AS l
         WHERE l.tx >= late.tx AND l.tx <= late.tx AND l.seq > $3::bigint
           AND true /* filter l up to 8 */
         ORDER BY l.tx, l.seq
         LIMIT $5::bigint) AS late_row
     WHERE pg_visible_in_snapshot(late.tx, (SELECT $2::text::pg_snapshot)))
    UNION ALL
    (SELECT n.*
     FROM "postrider".outbox AS n
     WHERE n.seq > greatest($3::bigint, $4::bigint)
       AND true /* filter n up to 8 */
       AND n.tx >= (SELECT pg_snapshot_xmax($1::text::pg_snapshot))
       AND (n.tx < (SELECT pg_snapshot_xmin($2::text::pg_snapshot))
            OR pg_visible_in_snapshot(n.tx, (SELECT $2::text::pg_snapshot)))
     ORDER BY n.seq
     LIMIT $5::bigint)
) AS o
ORDER BY o.seq
LIMIT $5::bigint
