-- The lease: who leads a relay, until when, and how far it may publish.
--
-- Locks: none yet.

SET LOCAL lock_timeout = '5s';
