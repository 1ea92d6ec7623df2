-- Actions of operators on one letter, the oldest first.
--
-- $1 bigint letter id, $2 bigint rows at most
-- Columns: acted_at text (ISO 8601, UTC), actor text, database_user text, action text,
--   reason text null, event_id uuid, before text, after text
-- Rows: 0 to $2. Index: audit_letter. Locks: ACCESS SHARE.
SELECT to_char(a.acted_at AT TIME ZONE 'UTC', 'YYYY-MM-DD"T"HH24:MI:SS.US"Z"') AS acted_at,
       a.actor, a.database_user, a.action, a.reason, a.event_id, a.before::text AS before,
       a.after::text AS after
FROM "postrider".audit AS a
WHERE a.letter_id = $1::bigint
ORDER BY a.id
LIMIT $2::bigint
