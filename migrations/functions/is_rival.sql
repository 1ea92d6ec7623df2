-- is_rival(): whether this name is that of a relay of a route with another number of shards: the
-- name of the route itself (one shard), or `ROUTE.INDEX-of-COUNT`. Two numbers of shards at once
-- would publish the same events, each in its own order.

CREATE OR REPLACE FUNCTION "postrider".is_rival(relay text, route text, shards integer)
RETURNS boolean
LANGUAGE sql IMMUTABLE PARALLEL SAFE SET search_path = pg_catalog, pg_temp
AS $body$
    SELECT CASE WHEN $1 = $2 THEN $3 > 1
        ELSE starts_with($1, $2 || '.') AND substr($1, length($2) + 2) ~ '^[0-9]+-of-[0-9]+$'
             AND substring($1 FROM '[0-9]+$')::numeric <> $3 END
$body$;

COMMENT ON FUNCTION "postrider".is_rival(text, text, integer)
    IS 'Whether a relay is of a route, with another number of shards.';
REVOKE ALL ON FUNCTION "postrider".is_rival(text, text, integer) FROM PUBLIC;
GRANT EXECUTE ON FUNCTION "postrider".is_rival(text, text, integer)
    TO postrider_relay, postrider_operator;
