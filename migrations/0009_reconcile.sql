-- What an operator needs to reconcile: publish again what the stream has lost.
--
-- Locks: none that anybody waits for.

SET LOCAL lock_timeout = '5s';

GRANT INSERT ON "postrider".letter TO postrider_operator;
GRANT UPDATE (holds, stream_seq) ON "postrider".letter TO postrider_operator;
GRANT UPDATE (heal_requested_at) ON "postrider".position TO postrider_operator;
