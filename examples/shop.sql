-- The tables of the example shop: what the producer writes and what the consumer keeps.
CREATE SCHEMA IF NOT EXISTS shop;

CREATE TABLE IF NOT EXISTS shop.orders (
    id       bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    customer text NOT NULL,
    total    numeric(10, 2) NOT NULL
);

-- How much each customer has spent. Adding is not idempotent: an event that is applied twice shows.
CREATE TABLE IF NOT EXISTS shop.spending (
    customer text PRIMARY KEY,
    orders   bigint NOT NULL,
    total    numeric(12, 2) NOT NULL
);
