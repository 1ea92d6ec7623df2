-- Claims the event's id and notes the event, in one transaction. No row when the event was noted
-- before.
INSERT INTO journal (event_id, event_type)
SELECT $1, $2 WHERE "postrider".claim('demo', $1)
RETURNING event_id
