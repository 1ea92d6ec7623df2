-- The tables of the demo: the orders of the shop, and the events that the consumer has noted.
CREATE TABLE orders (
    id    bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    total numeric NOT NULL,
    paid  boolean NOT NULL DEFAULT false
);
CREATE TABLE journal (
    event_id   uuid PRIMARY KEY,
    event_type text NOT NULL,
    noted_at   timestamptz NOT NULL DEFAULT clock_timestamp()
);
