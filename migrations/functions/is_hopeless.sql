-- is_hopeless(): whether a dead letter can never be published as it is: the fault is in the row,
-- and nobody has edited the letter since it died. A letter that a configuration or a
-- limit may have refused is not hopeless.

CREATE OR REPLACE FUNCTION "postrider".is_hopeless(
    letter_id bigint, error_code text, subject text, dead_at timestamptz) RETURNS boolean
LANGUAGE sql STABLE SECURITY DEFINER SET search_path = pg_catalog, pg_temp
RETURN ($2 IN ('missing_field', 'two_payloads', 'reserved_header', 'invalid_header',
               'headers_too_large', 'msg_id_collision', 'unreadable_row')
        OR $2 IN ('invalid_subject', 'subject_too_long') AND coalesce($3, '') <> '')
    AND $4 IS NOT NULL
    AND NOT EXISTS (SELECT FROM "postrider".audit AS a
                    WHERE a.letter_id = $1 AND a.action = 'edit' AND a.acted_at >= $4);

COMMENT ON FUNCTION "postrider".is_hopeless(bigint, text, text, timestamptz)
    IS 'Whether a dead letter can never be published as it is.';
REVOKE ALL ON FUNCTION "postrider".is_hopeless(bigint, text, text, timestamptz) FROM PUBLIC;
GRANT EXECUTE ON FUNCTION "postrider".is_hopeless(bigint, text, text, timestamptz)
    TO postrider_operator, postrider_relay;
