-- Whether a transaction of a lost connection is still running. One row.
SELECT coalesce(pg_xact_status($1::text::xid8) = 'in progress', false)
