-- Whether a prepared transaction waits for its second phase. One row.
SELECT EXISTS (SELECT FROM pg_prepared_xacts WHERE gid = $1 AND database = current_database())
