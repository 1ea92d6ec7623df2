-- The seq of the first row of a page. Run it when a page of one row could not be read. It reads no
-- column that may be stored outside of the row. The conditions are those of read_page_late.sql.
--
-- $1 text settled snapshot, $2 text target snapshot, $3 bigint bookmark, $4 bigint floor of the
-- settled snapshot, $5 text null late transactions, as find_late_transactions.sql returned them,
-- $6 bigint only rows with a lower seq
-- Columns: seq int8 null (null: there is no row)
-- Rows: exactly one. Index: as read_page_late.sql. Locks: ACCESS SHARE.
SELECT (SELECT o.seq
        FROM ((SELECT late_row.seq
               FROM unnest((SELECT coalesce($5::text, '{}')::xid8[])) AS late (tx)
               CROSS JOIN LATERAL (
                   SELECT l.seq FROM "postrider".outbox AS l
                   WHERE l.tx >= late.tx AND l.tx <= late.tx AND l.seq > $3::bigint
                     AND l.seq < $6::bigint
                   ORDER BY l.tx, l.seq
                   LIMIT 1) AS late_row
               WHERE pg_visible_in_snapshot(late.tx, (SELECT $2::text::pg_snapshot)))
              UNION ALL
              (SELECT n.seq
               FROM "postrider".outbox AS n
               WHERE n.seq > greatest($3::bigint, $4::bigint) AND n.seq < $6::bigint
                 AND n.tx >= (SELECT pg_snapshot_xmax($1::text::pg_snapshot))
                 AND (n.tx < (SELECT pg_snapshot_xmin($2::text::pg_snapshot))
                      OR pg_visible_in_snapshot(n.tx, (SELECT $2::text::pg_snapshot)))
               ORDER BY n.seq
               LIMIT 1)) AS o
        ORDER BY o.seq
        LIMIT 1) AS seq
