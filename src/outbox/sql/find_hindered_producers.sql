-- Roles that should be able to insert events and would be refused (42501), with all privileges that
-- they lack.
--
-- An insert runs the defaults of the table as the inserting role. It runs the trigger that wakes
-- the relay as the owner of that function. emit() and similar functions run their calls as the
-- caller. The texts of the functions show which ones they call.
--
-- A role should be able to insert when it was granted INSERT, also through another role. The role
-- postrider_producer should be able to when it may use the schema or read the sequence `gate`.
--
-- No parameters.
-- Columns: role text null (null: every insert is refused while the relay sleeps, because the owner
--   of wake() lacks something), lacks text[], statements text[] (they grant it; only a superuser
--   may grant a function in pg_catalog)
-- Rows: one for each role, at most 20: the row without a role first, then postrider_producer.
--   Index: catalogs. Locks: none.
WITH RECURSIVE home AS MATERIALIZED (
    SELECT c.oid, c.relnamespace, c.relowner, c.relacl, g.oid AS gate
    FROM pg_class AS c, pg_class AS g
    WHERE c.oid = '"postrider".outbox'::regclass AND g.oid = '"postrider".gate'::regclass
), routine AS MATERIALIZED (
    SELECT p.oid, p.proname, p.proowner, '.' || p.proname || '(' AS call,
           p.prosrc || coalesce(pg_get_function_sqlbody(p.oid), '') AS body
    -- A constant, because the planner expects thousands of rows of a join. For the recursion below
    -- it would then expect millions, and allocate memory for them.
    FROM pg_proc AS p WHERE p.pronamespace = '"postrider"'::regnamespace
), expression AS MATERIALIZED (
    SELECT string_agg(pg_get_expr(d.adbin, d.adrelid), ' ') AS body
    FROM pg_attrdef AS d JOIN home ON d.adrelid = home.oid
), called (oid, run_by) AS (
    SELECT r.oid, CASE WHEN strpos(e.body, r.call) > 0 THEN 'insert'
                       WHEN r.proname = 'wake' THEN 'trigger' ELSE 'function' END
    FROM routine AS r CROSS JOIN expression AS e
    WHERE r.proname IN ('wake', 'emit', 'emit_binary', 'emit_many', 'context')
       OR strpos(e.body, r.call) > 0
    UNION
    SELECT r.oid, c.run_by
    FROM called AS c JOIN routine AS caller ON caller.oid = c.oid
    JOIN routine AS r ON strpos(caller.body, r.call) > 0
), own AS MATERIALIZED (
    -- Functions of Postrider, and the role that runs them.
    SELECT r.oid, r.proname, r.body, c.run_by FROM called AS c JOIN routine AS r USING (oid)
), revoked AS MATERIALIZED (
    -- Functions of Postgres that every database grants to PUBLIC, and of which this database has
    -- revoked that grant. Functions that are never granted to PUBLIC are not called by those of
    -- Postrider.
    SELECT f.oid, f.oid::regprocedure::text AS name, p.run_by
    FROM pg_proc AS f
    JOIN (SELECT own.body, own.run_by FROM own
          UNION ALL SELECT e.body, 'insert' FROM expression AS e) AS p
      ON strpos(p.body, f.proname || '(') > 0 AND p.body ~ ('(^|[^0-9a-z_])' || f.proname || '[(]')
    WHERE f.pronamespace = 'pg_catalog'::regnamespace AND f.proacl IS NOT NULL
      AND NOT EXISTS (SELECT FROM pg_init_privs AS i
                      WHERE i.objoid = f.oid AND i.classoid = 'pg_proc'::regclass AND i.objsubid = 0)
      AND NOT EXISTS (SELECT FROM aclexplode(f.proacl) AS a
                      WHERE a.grantee = 0 AND a.privilege_type = 'EXECUTE')
), grantee AS MATERIALIZED (
    SELECT a.grantee AS oid FROM home, aclexplode(coalesce(home.relacl, acldefault('r', home.relowner))) AS a
    WHERE a.privilege_type = 'INSERT'
    UNION
    SELECT a.grantee FROM home JOIN pg_attribute AS t ON t.attrelid = home.oid, aclexplode(t.attacl) AS a
    WHERE a.privilege_type = 'INSERT'
    UNION
    SELECT r.oid FROM pg_roles AS r, home
    WHERE r.rolname = 'postrider_producer'
      AND (has_schema_privilege(r.oid, home.relnamespace, 'USAGE')
           OR has_sequence_privilege(r.oid, home.gate, 'SELECT'))
), producer AS MATERIALIZED (
    SELECT r.oid, r.rolname::text AS name, m.is_member,
           has_any_column_privilege(r.oid, home.oid, 'INSERT') AS inserts,
           m.is_member OR EXISTS (SELECT FROM routine AS p WHERE p.proname LIKE 'emit%'
                                  AND has_function_privilege(r.oid, p.oid, 'EXECUTE')) AS emits
    FROM home, pg_roles AS r
    CROSS JOIN LATERAL (SELECT EXISTS (
        SELECT FROM pg_roles AS g JOIN grantee USING (oid)
        WHERE g.rolname = 'postrider_producer' AND pg_has_role(r.oid, g.oid, 'USAGE'))) AS m (is_member)
    WHERE NOT r.rolsuper AND r.oid >= 16384
      -- A member of postrider_producer lacks what postrider_producer lacks, so that role stands for
      -- it.
      AND (NOT m.is_member OR r.rolname = 'postrider_producer')
      AND EXISTS (SELECT FROM grantee AS g
                  WHERE CASE g.oid WHEN 0 THEN has_schema_privilege(r.oid, home.relnamespace, 'USAGE')
                        ELSE pg_has_role(r.oid, g.oid, 'USAGE') END)
), lacking (role, is_member, object, privilege, kind, place, by_superuser) AS (
    SELECT p.name, p.is_member, 'schema', 'USAGE', 'SCHEMA', '"postrider"', false
    FROM producer AS p, home WHERE NOT has_schema_privilege(p.oid, home.relnamespace, 'USAGE')
    UNION ALL
    SELECT p.name, p.is_member, 'sequence gate', 'SELECT', 'SEQUENCE', '"postrider".gate', false
    FROM producer AS p, home WHERE NOT has_sequence_privilege(p.oid, home.gate, 'USAGE, SELECT')
    UNION ALL
    -- The columns tx, seq and slot are set by their defaults alone. No emit function sets
    -- occurred_at. Columns that the application has added are its own business: an insert that
    -- names none of them succeeds.
    SELECT p.name, p.is_member,
           CASE WHEN p.inserts THEN 'columns of outbox' ELSE 'table outbox' END,
           format('INSERT (%s)', string_agg(quote_ident(t.attname::text), ', ' ORDER BY t.attnum)),
           'TABLE', '"postrider".outbox', false
    FROM producer AS p, home JOIN pg_attribute AS t ON t.attrelid = home.oid
    WHERE t.attname IN ('event_version', 'occurred_at', 'event_id', 'event_type', 'kind', 'aggregate_type',
                        'aggregate_id', 'aggregate_version', 'source', 'subject', 'content_type', 'headers',
                        'correlation_id', 'causation_id', 'actor', 'payload', 'payload_binary')
      AND NOT has_column_privilege(p.oid, home.oid, t.attnum, 'INSERT')
      AND (NOT p.inserts OR p.emits AND t.attname <> 'occurred_at')
    GROUP BY p.name, p.is_member, p.inserts
    UNION ALL
    SELECT p.name, p.is_member, format('function %s', r.proname), 'EXECUTE', 'FUNCTION',
           r.oid::regprocedure::text, false
    FROM producer AS p JOIN own AS r ON r.run_by = 'insert' OR p.emits AND r.run_by = 'function'
    WHERE NOT has_function_privilege(p.oid, r.oid, 'EXECUTE')
    UNION ALL
    SELECT p.name, p.is_member, format('function %s of Postgres', f.name), 'EXECUTE', 'FUNCTION',
           'pg_catalog.' || f.name, true
    FROM producer AS p JOIN revoked AS f ON f.run_by = 'insert' OR p.emits AND f.run_by = 'function'
    WHERE NOT has_function_privilege(p.oid, f.oid, 'EXECUTE')
    UNION ALL
    -- The trigger function runs as its owner, who may be a superuser and then lacks nothing.
    SELECT NULL, false, format('function %s of Postgres', f.name), 'EXECUTE', 'FUNCTION',
           'pg_catalog.' || f.name, true
    FROM routine AS w JOIN revoked AS f ON f.run_by = 'trigger'
    WHERE w.proname = 'wake' AND NOT has_function_privilege(w.proowner, f.oid, 'EXECUTE')
    UNION ALL
    SELECT NULL, false, format('function %s', r.proname), 'EXECUTE', 'FUNCTION', r.oid::regprocedure::text, false
    FROM routine AS w JOIN own AS r ON r.run_by = 'trigger'
    WHERE w.proname = 'wake' AND NOT has_function_privilege(w.proowner, r.oid, 'EXECUTE')
    UNION ALL
    SELECT NULL, false, format('sequence %s', s.name), s.privilege, 'SEQUENCE', '"postrider".' || s.name, false
    FROM routine AS w, (VALUES ('gate', 'SELECT'), ('gate', 'UPDATE'), ('wake_until', 'SELECT')) AS s (name, privilege)
    WHERE w.proname = 'wake'
      AND NOT has_sequence_privilege(w.proowner, format('"postrider".%s', s.name)::regclass::oid, s.privilege)
)
SELECT l.role,
       array_agg(DISTINCT format('%s on %s', split_part(l.privilege, ' ', 1), l.object)) AS lacks,
       CASE WHEN l.role IS NOT NULL AND NOT l.is_member AND NOT bool_or(l.by_superuser)
                 AND EXISTS (SELECT FROM pg_roles AS r JOIN grantee USING (oid) WHERE r.rolname = 'postrider_producer')
            THEN ARRAY[format('GRANT postrider_producer TO %I', l.role)]
            ELSE array_agg(DISTINCT format('GRANT %s ON %s %s TO %s', l.privilege, l.kind, l.place,
                     CASE WHEN l.role IS NULL THEN quote_ident(o.name)
                          WHEN l.by_superuser THEN 'PUBLIC'
                          WHEN l.is_member THEN 'postrider_producer'
                          ELSE quote_ident(l.role) END)) END AS statements
FROM lacking AS l
CROSS JOIN (SELECT (SELECT r.rolname::text FROM pg_roles AS r, routine AS w
                    WHERE w.proname = 'wake' AND r.oid = w.proowner)) AS o (name)
GROUP BY l.role, l.is_member
ORDER BY l.role IS NOT NULL, l.role <> 'postrider_producer', l.role
LIMIT 20
