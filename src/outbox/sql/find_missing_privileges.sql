-- Privileges that the relay needs and its role lacks, for `postrider check`.
--
-- Columns: object text, privilege text, statement text (to run: it makes this user a member of
--   postrider_relay; or else grants the privilege to that role, or to this user when there is no
--   such role)
-- Rows: one for each missing privilege. Locks: none.
SELECT needed.object, needed.privilege,
       CASE WHEN roles.is_wanting THEN format('GRANT postrider_relay TO %I', current_user)
            ELSE format('GRANT %s ON %s %s TO %s', needed.privilege, upper(needed.kind),
                        needed.object, roles.grantee) END AS statement
FROM (VALUES ('table', '"postrider".outbox', 'SELECT'),
             ('table', '"postrider".turn', 'SELECT'),
             ('table', '"postrider".position', 'SELECT'),
             ('table', '"postrider".position', 'INSERT'),
             ('table', '"postrider".position', 'UPDATE'),
             ('table', '"postrider".letter', 'SELECT'),
             ('table', '"postrider".letter', 'INSERT'),
             ('table', '"postrider".letter', 'UPDATE'),
             ('table', '"postrider".checkpoint', 'SELECT'),
             ('table', '"postrider".checkpoint', 'INSERT'),
             ('table', '"postrider".checkpoint', 'DELETE'),
             ('table', '"postrider".loss', 'SELECT'),
             ('table', '"postrider".loss', 'INSERT'),
             ('table', '"postrider".contract', 'SELECT'),
             ('table', '"postrider".contract', 'INSERT'),
             ('table', '"postrider".contract', 'UPDATE'),
             ('sequence', '"postrider".gate', 'SELECT'),
             ('sequence', '"postrider".gate', 'UPDATE'),
             ('sequence', '"postrider".wake_until', 'SELECT'),
             ('sequence', '"postrider".wake_until', 'UPDATE'),
             ('sequence', '"postrider".outbox_seq_seq', 'SELECT'),
             ('function', '"postrider".function_digests()', 'EXECUTE'),
             ('function', '"postrider".is_led(text)', 'EXECUTE'),
             ('function', '"postrider".is_rival(text, text, integer)', 'EXECUTE'),
             ('function', '"postrider".broken_contract(text)', 'EXECUTE'),
             ('function', '"postrider".repair_contract()', 'EXECUTE'),
             ('function', '"postrider".fits_here(text)', 'EXECUTE'),
             ('function', '"postrider".retain(interval)', 'EXECUTE'),
             ('function', '"postrider".forget(interval, interval, bigint)', 'EXECUTE'),
             ('function', '"postrider".salvage(bigint)', 'EXECUTE'),
             ('function', '"postrider".next_damaged(bigint, bigint, xid8[])', 'EXECUTE'),
             ('function', '"postrider".unrestorable(text, bigint, bigint)', 'EXECUTE'),
             ('function', '"postrider".takes(jsonb, text, text, text, text, bigint)', 'EXECUTE'),
             ('function', '"postrider".note_filter(text, bigint, jsonb, bigint)', 'EXECUTE'),
             ('function', '"postrider".passed_over(text, jsonb)', 'EXECUTE'),
             ('function', '"postrider".rescan(text, bigint)', 'EXECUTE'),
             ('function', '"postrider".processed_maintain(interval)', 'EXECUTE'),
             ('function', 'pg_catalog.pg_notify(text, text)', 'EXECUTE'),
             ('function', 'pg_catalog.pg_control_system()', 'EXECUTE'),
             ('function', 'pg_catalog.pg_stat_get_activity(integer)', 'EXECUTE'),
             ('function', 'pg_catalog.pg_current_snapshot()', 'EXECUTE'),
             ('function', 'pg_catalog.pg_sequence_last_value(regclass)', 'EXECUTE'))
     AS needed (kind, object, privilege)
CROSS JOIN (SELECT CASE WHEN r.oid IS NULL THEN quote_ident(current_user)
                        ELSE 'postrider_relay' END AS grantee,
                   r.oid IS NOT NULL AND NOT pg_has_role(r.oid, 'MEMBER') AS is_wanting
            FROM (SELECT 1) AS one
            LEFT JOIN pg_roles AS r ON r.rolname = 'postrider_relay') AS roles
WHERE NOT CASE needed.kind
              WHEN 'table' THEN has_table_privilege(needed.object, needed.privilege)
              WHEN 'sequence' THEN has_sequence_privilege(needed.object, needed.privilege)
              ELSE has_function_privilege(needed.object, needed.privilege)
          END
