-- What an operator needs to reconcile: publish again what the stream has lost. And two indexes, so
-- that a million dead letters which nothing waits for cost the others nothing.
--
-- Locks: SHARE on letter while its indexes are built.

SET LOCAL lock_timeout = '5s';

GRANT INSERT ON "postrider".letter TO postrider_operator;
GRANT UPDATE (holds, stream_seq) ON "postrider".letter TO postrider_operator;
GRANT UPDATE (heal_requested_at) ON "postrider".position TO postrider_operator;

-- The keys that wait behind a dead letter.
CREATE INDEX letter_holding
    ON "postrider".letter (relay)
    WHERE state = 'dead' AND holds AND resolved_at IS NULL;
-- The letters of one key that others wait for or that wait themselves.
CREATE INDEX letter_waiting_key
    ON "postrider".letter (relay, hashtextextended(aggregate_id, 0), seq)
    WHERE resolved_at IS NULL AND (holds OR state <> 'dead');
