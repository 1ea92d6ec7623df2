-- Opens the wake-up gate for some seconds: until then a transaction that inserts events notifies
-- the channel postrider_<schema>. Before sleeping: LISTEN, open the gate, then run
-- find_open_writers.sql. Open it again before the time is over. When awake again, close it, so that
-- busy writers do not notify in vain.
--
-- The sequence `gate` also chooses the partition of new rows. Its two low bits, which retention
-- sets, stay; the third bit says that the wake-up gate is open.
--
-- $1 bigint seconds to stay open; 0 closes
-- Columns: until int8 (Unix second; 0: closed), slot int8 (partition of new rows from now on)
-- Rows: exactly one. Locks: none that lasts; setval is not transactional.
SELECT setval('"postrider".wake_until'::regclass,
              CASE WHEN $1::bigint > 0
                   THEN floor(date_part('epoch', clock_timestamp()))::bigint + $1::bigint
                   ELSE 0 END) AS until,
       setval('"postrider".gate'::regclass,
              ("postrider".sequence_value('"postrider".gate'::regclass) & 3)
              | (CASE WHEN $1::bigint > 0 THEN 4 ELSE 0 END)) AS slot
