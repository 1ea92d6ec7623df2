-- Deletes old resolved letters and old audit rows, each up to a limit.
--
-- $1 float8 retention of letters in seconds, $2 float8 retention of audit rows in seconds,
-- $3 bigint rows to delete at most, of letters and of audit rows each
-- Columns: letters int8, audits int8 (the numbers deleted)
-- Rows: exactly one. Index: letter_resolved, primary keys. Locks: the deleted rows.
SELECT f.letters, f.audits
FROM "postrider".forget(make_interval(secs => $1::float8), make_interval(secs => $2::float8),
                        $3::bigint) AS f
