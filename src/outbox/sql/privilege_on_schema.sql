-- Whether the relay's role may use the schema at all: without that nothing in it can be asked about.
--
-- Columns: object text, privilege text, statement text (grants it)
-- Rows: 0, or 1 when the privilege is missing. Locks: none.
SELECT '"postrider"' AS object, 'USAGE' AS privilege,
       format('GRANT USAGE ON SCHEMA "postrider" TO %s', grantee.name) AS statement
FROM (SELECT CASE WHEN pg_has_role(r.oid, 'MEMBER') THEN quote_ident(r.rolname)
                  ELSE quote_ident(current_user) END AS name
      FROM (SELECT 1) AS one
      LEFT JOIN pg_roles AS r ON r.rolname = 'postrider_relay') AS grantee
WHERE NOT has_schema_privilege('"postrider"'::regnamespace::oid, 'USAGE')
