-- Roles whose inserts into the outbox are refused (42501): they may insert, and may not read the
-- gate, a sequence that the default of outbox.slot reads.
--
-- No parameters.
-- Columns: role text
-- Rows: one a role. Locks: none.
SELECT r.rolname::text AS role
FROM pg_roles AS r
WHERE NOT r.rolsuper AND r.oid >= 16384
  AND has_any_column_privilege(r.oid, '"postrider".outbox'::regclass::oid, 'INSERT')
  AND NOT has_sequence_privilege(r.oid, '"postrider".gate'::regclass::oid, 'USAGE, SELECT')
ORDER BY 1
