-- Functions that an application calls, in the types that its driver sends.
--
-- Locks: none yet.

SET LOCAL lock_timeout = '5s';
