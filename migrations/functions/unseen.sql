-- unseen(): a pattern of the control characters that Unicode has beyond ASCII, on request with its
-- blanks. Null where the same bytes are letters.

CREATE OR REPLACE FUNCTION "postrider".unseen(with_blanks boolean) RETURNS text
LANGUAGE sql STABLE PARALLEL SAFE
RETURN CASE
    WHEN getdatabaseencoding() = 'UTF8' AND with_blanks
        THEN '[\u0080-\u00a0\u1680\u2000-\u200a\u2028\u2029\u202f\u205f\u3000\ufffd]'
    WHEN getdatabaseencoding() = 'UTF8' OR getdatabaseencoding() ~ '^(LATIN|ISO_8859)'
        THEN CASE WHEN with_blanks THEN '[\x80-\xa0]' ELSE '[\x80-\x9f]' END
    END;

COMMENT ON FUNCTION "postrider".unseen(boolean)
    IS 'Pattern of the control characters beyond ASCII.';
REVOKE ALL ON FUNCTION "postrider".unseen(boolean) FROM PUBLIC;
GRANT EXECUTE ON FUNCTION "postrider".unseen(boolean) TO postrider_producer;
