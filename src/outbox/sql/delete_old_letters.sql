-- Deletes old resolved letters and old audit rows, up to a limit each.
--
-- $1 float8 retention of letters in seconds, $2 float8 that of the audit, $3 bigint rows of each at
--   most
-- Columns: letters int8, audits int8 (that went)
-- Rows: exactly one. Index: letter_resolved, primary keys. Locks: the rows that go.
SELECT f.letters, f.audits
FROM "postrider".forget(make_interval(secs => $1::float8), make_interval(secs => $2::float8),
                        $3::bigint) AS f
