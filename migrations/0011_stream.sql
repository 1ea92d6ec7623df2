-- What is known of the stream, and what a healing could not restore.
--
-- Locks: none yet.

SET LOCAL lock_timeout = '5s';
