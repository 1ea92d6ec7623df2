-- Whether an event is in the outbox, and so its transaction committed. Scans the table: rare.
SELECT EXISTS (SELECT FROM "postrider".outbox WHERE event_id = $1)
