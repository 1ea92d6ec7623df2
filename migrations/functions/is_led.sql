-- is_led(): whether an instance runs this relay now. The one place that decides that. A lease that
-- ends later than any instance can have written counts only while its leader reports.

CREATE OR REPLACE FUNCTION "postrider".is_led(relay text) RETURNS boolean
LANGUAGE sql STABLE SET search_path = pg_catalog, pg_temp
AS $body$
    SELECT EXISTS (
        SELECT FROM "postrider".position AS p
        WHERE p.relay = $1 AND p.lease_until > clock_timestamp()
          AND (p.lease_until <= clock_timestamp() + interval '5 minutes'
               OR p.reported_at > clock_timestamp() - interval '5 minutes'))
$body$;

COMMENT ON FUNCTION "postrider".is_led(text) IS 'Whether an instance runs this relay now.';
REVOKE ALL ON FUNCTION "postrider".is_led(text) FROM PUBLIC;
GRANT EXECUTE ON FUNCTION "postrider".is_led(text) TO postrider_relay, postrider_operator;
