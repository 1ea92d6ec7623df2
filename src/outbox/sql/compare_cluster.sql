-- Tests whether a relay's position was made in a cluster with another identifier than this one.
--
-- $1 text relay
-- Columns: is_foreign bool, fits bool (the position is valid in this cluster: the identifiers are
--   equal, or pg_upgrade has made this cluster of that one)
-- Rows: 0 when the relay never ran, else 1. Index: primary key of each leaf, and the one on tx.
--   Locks: ACCESS SHARE.
SELECT p.system_id <> c.system_identifier AS is_foreign,
       p.system_id = c.system_identifier OR "postrider".fits_here(p.relay) AS fits
FROM "postrider".position AS p CROSS JOIN pg_control_system() AS c
WHERE p.relay = $1::text
