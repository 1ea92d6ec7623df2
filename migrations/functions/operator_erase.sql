-- operator_erase(): erases for the law's sake what is kept of one key: its settled rows of the
-- outbox and its resolved letters, and what the audit quotes of these. One batch of rows. Rows that
-- are not settled and letters that are not resolved are left alone and counted: an event without
-- its payload would be another event.
--
-- Rows are deleted, and not emptied: a healing would publish an empty row.
--
-- $1 relay that is named in the audit, $2 and $3 aggregate type and id, $4 only rows above this
-- seq, $5 rows at most, $6 actor, $7 reason. `next` is null when this was the last batch.

CREATE OR REPLACE FUNCTION "postrider".operator_erase(
    text, text, text, bigint, bigint, text, text,
    OUT rows_erased bigint, OUT rows_left bigint, OUT letters_erased bigint, OUT letters_left bigint,
    OUT next bigint)
LANGUAGE plpgsql VOLATILE SECURITY DEFINER
SET jit = off SET plan_cache_mode = force_custom_plan
SET search_path = pg_catalog, pg_temp AS $body$
#variable_conflict use_column
DECLARE
    last_seq bigint;
BEGIN
    SELECT max(s.seq) INTO last_seq
    FROM (SELECT o.seq FROM "postrider".outbox AS o
          WHERE o.seq > $4 ORDER BY o.seq LIMIT $5) AS s;
    WITH of_key AS MATERIALIZED (
        SELECT o.seq, o.slot,
               EXISTS (SELECT FROM "postrider".position)
               AND NOT EXISTS (
                   SELECT FROM "postrider".position AS p
                   WHERE NOT pg_visible_in_snapshot(o.tx, p.snapshot)
                     AND NOT (o.seq <= p.bookmark AND pg_visible_in_snapshot(o.tx, p.target)))
               AND NOT EXISTS (
                   SELECT FROM "postrider".letter AS l
                   WHERE l.seq = o.seq AND l.resolved_at IS NULL) AS is_settled
        FROM "postrider".outbox AS o
        WHERE o.seq > $4 AND o.seq <= last_seq
          AND o.aggregate_type = $2 AND o.aggregate_id = $3
    ), erased AS (
        DELETE FROM "postrider".outbox AS o USING of_key AS k
        WHERE k.is_settled AND o.seq = k.seq AND o.slot = k.slot
        RETURNING o.seq
    )
    SELECT (SELECT count(*) FROM erased), (SELECT count(*) FROM of_key WHERE NOT is_settled)
    INTO rows_erased, rows_left;
    WITH of_key AS MATERIALIZED (
        SELECT l.id, l.resolved_at IS NOT NULL AND l.next_attempt_at IS NULL AS is_over
        FROM "postrider".letter AS l
        WHERE l.aggregate_type = $2 AND l.aggregate_id = $3 AND $4 = 0
    ), erased AS (
        DELETE FROM "postrider".letter AS l USING of_key AS k
        WHERE k.is_over AND l.id = k.id
        RETURNING l.id
    ), scrubbed AS (
        UPDATE "postrider".audit AS a
        SET before = a.before - '{headers,subject,payload_sha256}'::text[],
            after = a.after - '{headers,subject,payload_sha256}'::text[]
        FROM erased AS e WHERE a.letter_id = e.id
    )
    SELECT (SELECT count(*) FROM erased), (SELECT count(*) FROM of_key WHERE NOT is_over)
    INTO letters_erased, letters_left;
    next := last_seq;
    IF rows_erased > 0 OR letters_erased > 0 OR $4 = 0 THEN
        -- The key itself may be what has to go, so the audit has its digest.
        INSERT INTO "postrider".audit (
            actor, action, reason, relay, letter_id, seq, event_id, before, after)
        VALUES ($6, 'erase', $7, $1, 0, 0, '00000000-0000-0000-0000-000000000000',
                jsonb_build_object(
                    'key_sha256', encode(sha256(convert_to($2 || '/' || $3, 'UTF8')), 'hex'),
                    'rows', rows_erased, 'letters', letters_erased),
                jsonb_build_object('rows_left', rows_left, 'letters_left', letters_left));
    END IF;
END
$body$;

COMMENT ON FUNCTION "postrider".operator_erase(text, text, text, bigint, bigint, text, text)
    IS 'Erases what is kept of one key.';
REVOKE ALL ON FUNCTION "postrider".operator_erase(text, text, text, bigint, bigint, text, text)
    FROM PUBLIC;
GRANT EXECUTE ON FUNCTION "postrider".operator_erase(text, text, text, bigint, bigint, text, text)
    TO postrider_operator;
