-- How many events the outbox has, and how many unresolved letters by state. One row.
SELECT
    (SELECT count(*) FROM "postrider".outbox) AS events,
    count(*) FILTER (WHERE state = 'dead') AS dead,
    count(*) FILTER (WHERE state = 'retrying') AS retrying,
    count(*) FILTER (WHERE state = 'held') AS held
FROM "postrider".letter
WHERE resolved_at IS NULL
