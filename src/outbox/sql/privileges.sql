-- What the relay needs and its role may not do, for `postrider check`.
--
-- Columns: object text, privilege text
-- Rows: one for each missing privilege. Locks: none.
SELECT needed.object, needed.privilege
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
             ('sequence', '"postrider".gate', 'SELECT'),
             ('sequence', '"postrider".gate', 'UPDATE'),
             ('sequence', '"postrider".wake_until', 'SELECT'),
             ('sequence', '"postrider".wake_until', 'UPDATE'),
             ('sequence', '"postrider".outbox_seq_seq', 'SELECT'),
             ('function', '"postrider".retain(interval)', 'EXECUTE'),
             ('function', '"postrider".rescan(text, bigint)', 'EXECUTE'),
             ('function', '"postrider".processed_maintain(interval)', 'EXECUTE'))
     AS needed (kind, object, privilege)
WHERE NOT CASE needed.kind
              WHEN 'table' THEN has_table_privilege(needed.object, needed.privilege)
              WHEN 'sequence' THEN has_sequence_privilege(needed.object, needed.privilege)
              ELSE has_function_privilege(needed.object, needed.privilege)
          END
