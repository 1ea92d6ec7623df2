-- The next page of events between two snapshots, in seq order, when transactions are late.
--
-- As read_page.sql, and the rows of the late transactions (open in P, visible in C), which may have
-- any seq above the bookmark. Bounds are those of read_page.sql.
--
-- $1 to $6 as in read_page.sql
-- $7 text  late transactions, as find_late_transactions.sql gave them
-- $8 bigint  highest seq of the stretch, only where a filter stands
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
