-- The next page of events with a seq below a bound. Run it when the block of the row at that bound
-- cannot be read, so that the rows before it are not passed over. The conditions are those of
-- read_page_late.sql.
--
-- $1 text settled snapshot, $2 text target snapshot, $3 bigint bookmark, $4 bigint floor of the
-- settled snapshot, $5 bigint rows at most, $6 integer bytes of one payload at most that comes
-- along, $7 text null late transactions, as find_late_transactions.sql returned them, $8 bigint
-- only rows with a lower seq
-- Columns: those of columns/event.sql
-- Rows: 0 to $5. Index: outbox_tx_seq for each late transaction, primary key for the rest.
-- Locks: ACCESS SHARE.
SELECT o.* /* columns event $6::integer */
FROM (
    (SELECT late_row.*
     FROM unnest((SELECT coalesce($7::text, '{}')::xid8[])) AS late (tx)
     CROSS JOIN LATERAL (
         SELECT l.* FROM "postrider".outbox AS l
         WHERE l.tx >= late.tx AND l.tx <= late.tx AND l.seq > $3::bigint AND l.seq < $8::bigint
         ORDER BY l.tx, l.seq
         LIMIT $5::bigint) AS late_row
     WHERE pg_visible_in_snapshot(late.tx, (SELECT $2::text::pg_snapshot)))
    UNION ALL
    (SELECT n.*
     FROM "postrider".outbox AS n
     WHERE n.seq > greatest($3::bigint, $4::bigint) AND n.seq < $8::bigint
       AND n.tx >= (SELECT pg_snapshot_xmax($1::text::pg_snapshot))
       AND (n.tx < (SELECT pg_snapshot_xmin($2::text::pg_snapshot))
            OR pg_visible_in_snapshot(n.tx, (SELECT $2::text::pg_snapshot)))
     ORDER BY n.seq
     LIMIT $5::bigint)
) AS o
ORDER BY o.seq
LIMIT $5::bigint
