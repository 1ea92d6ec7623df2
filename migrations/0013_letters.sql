-- Letters and audit: their retention, erasure, and acts of operators as functions.
--
-- Locks: none yet.

SET LOCAL lock_timeout = '5s';
