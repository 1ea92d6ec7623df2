-- The record of the functions that `postrider migrate` has installed: those of functions/.
--
-- Why: a function is one file that each migration of the schema replaces as a whole, so that its
-- text stands in one place. A numbered file makes tables, and whatever function a table itself
-- refers to; see docs/adr/0014-functions-as-files.md.
--
-- A numbered file is committed before the functions are replaced. So it leaves tables on which the
-- functions of the release before still work.
--
-- Locks: only objects that this file creates.

SET LOCAL lock_timeout = '5s';

CREATE TABLE "postrider".installed_function (
    -- As `claim(text, uuid)`.
    signature    text        NOT NULL PRIMARY KEY,
    -- The name of its file, which is that of the function; and the checksum that the file had.
    file         text        NOT NULL,
    checksum     text        NOT NULL,
    -- The digest of the catalog's entry then (functions/function_digests.sql): another one now
    -- means that somebody has changed the function by hand.
    digest       text        NOT NULL,
    -- The major version of the server that made the digest: another one may word a body otherwise.
    postgres     integer     NOT NULL,
    -- Roles, of the four, that may execute the function.
    roles        text[]      NOT NULL,
    -- The version of the program whose text it is.
    program      text        NOT NULL,
    installed_at timestamptz NOT NULL DEFAULT clock_timestamp()
);

COMMENT ON TABLE "postrider".installed_function IS
    'The functions of this schema, as `postrider migrate` has installed them.';

GRANT SELECT ON "postrider".installed_function TO postrider_relay, postrider_operator;

-- Functions of before this record that no file of functions/ defines any more. A signature that is
-- recorded and not installed again is dropped.
INSERT INTO "postrider".installed_function (
    signature, file, checksum, digest, postgres, roles, program)
SELECT signature, file, '', '', 0, '{}', '0.0.0'
FROM (VALUES
    ('emit(text, json, text, text, jsonb, integer, bigint, uuid, text, text, text, text, text, text)',
     'emit'),
    ('emit_binary(text, bytea, text, text, text, jsonb, integer, bigint, uuid, text, text, text, '
     'text, text, text)', 'emit_binary')) AS old (signature, file);
