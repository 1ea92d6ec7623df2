-- Acts of operators: functions alone may change letters, and each leaves a row of the audit.
--
-- Why: an operator who may change the table of letters may do so past the audit. So each act is a
--   function (functions/operator_*.sql) that writes its rows of the audit in the statement that
--   changes the letters, with the login of the session. There is no change without a record.
--
-- Locks: ACCESS EXCLUSIVE on position, for as long as it takes to add a column without a rewrite.

SET LOCAL lock_timeout = '5s';

-- The reason for which nothing is published, as a word; set and cleared with the note, which is
-- for people.
ALTER TABLE "postrider".position ADD COLUMN gate_kind text;

REVOKE INSERT, UPDATE, DELETE ON "postrider".letter, "postrider".audit, "postrider".position
    FROM postrider_operator;
