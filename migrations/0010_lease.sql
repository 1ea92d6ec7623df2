-- The lease: who leads a relay, until when, and how far it may publish.
--
-- Locks: ACCESS EXCLUSIVE on position, for as long as it takes to add columns without a rewrite.

SET LOCAL lock_timeout = '5s';

-- What the instance that leads found out itself, and when it said so last: `postrider status` shows it,
-- and a report that is old is a finding too. {"term": ..., "findings": [{code, severity, cause, next}]}
ALTER TABLE "postrider".position
    ADD COLUMN report jsonb,
    ADD COLUMN reported_at timestamptz;
