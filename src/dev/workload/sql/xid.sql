-- Draws the transaction's id, and tells it. One row.
SELECT pg_current_xact_id()::text
