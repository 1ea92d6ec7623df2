-- Indexes over letters: of those that block their keys, read page by page, and of resolved ones,
-- for their retention.
--
-- Locks: SHARE on letter while the indexes are built.

SET LOCAL lock_timeout = '5s';

-- The letters that block their keys (src/outbox/sql/load_blocked_keys.sql), page by page. It also
-- serves whatever letter_holding did.
CREATE INDEX letter_blocking
    ON "postrider".letter (relay, id)
    WHERE next_attempt_at IS NOT NULL OR state = 'dead' AND holds AND resolved_at IS NULL;
DROP INDEX "postrider".letter_holding;

-- Resolved letters, the oldest first.
CREATE INDEX letter_resolved
    ON "postrider".letter (resolved_at)
    WHERE resolved_at IS NOT NULL AND next_attempt_at IS NULL;
