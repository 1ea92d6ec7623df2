-- The privilege to use the schema, when the relay's role lacks it. Without it no other privilege in
-- the schema can be tested.
--
-- Columns: object text, privilege text, statement text (to run: it grants the privilege)
-- Rows: 0, or 1 when the privilege is missing. Locks: none.
SELECT '"postrider"' AS object, 'USAGE' AS privilege,
       CASE WHEN roles.is_wanting THEN format('GRANT postrider_relay TO %I', current_user)
            ELSE format('GRANT USAGE ON SCHEMA "postrider" TO %s', roles.grantee) END AS statement
FROM (SELECT CASE WHEN r.oid IS NULL THEN quote_ident(current_user)
                  ELSE 'postrider_relay' END AS grantee,
             r.oid IS NOT NULL AND NOT pg_has_role(r.oid, 'MEMBER') AS is_wanting
      FROM (SELECT 1) AS one
      LEFT JOIN pg_roles AS r ON r.rolname = 'postrider_relay') AS roles
WHERE NOT has_schema_privilege('"postrider"'::regnamespace::oid, 'USAGE')
