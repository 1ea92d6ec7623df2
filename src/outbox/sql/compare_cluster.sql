-- Tests whether a relay's position was made in a cluster with another identifier than this one.
--
-- $1 text relay
-- Columns: is_foreign bool, fits bool (it is true here all the same, as after pg_upgrade)
-- Rows: 0 when the relay never ran, else 1. Index: primary key; as take_over_position.sql.
-- Locks: ACCESS SHARE.
SELECT p.system_id <> c.system_identifier AS is_foreign,
       p.system_id = c.system_identifier OR "postrider".fits_here(p.relay) AS fits
FROM "postrider".position AS p CROSS JOIN pg_control_system() AS c
WHERE p.relay = $1::text
