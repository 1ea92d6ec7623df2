-- The next page of events below a place. Run it when the block of the row at that place cannot be
-- read, so that the rows before it are not passed over (read_page_late.sql has the conditions).
--
-- $1 to $6 as read_page.sql, $7 text null late transactions, $8 bigint only rows with a lower seq
-- Columns: those of columns/event.sql
-- Rows: 0 to $5. Index: as read_page_late.sql. Locks: ACCESS SHARE.
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
