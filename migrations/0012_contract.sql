-- What the reader and the functions rest on, pinned and checked.
--
-- Locks: none yet.

SET LOCAL lock_timeout = '5s';
