"""Places orders: the business row and its event in one transaction.

    python producer.py --database postgresql://localhost/app --orders 100

Either both are committed or neither is. Nothing here knows of NATS: the relay reads the outbox.
"""

import argparse
import random

import psycopg
from psycopg.types.json import Json

CUSTOMERS = ["ann", "bob", "carol", "dave", "eve"]


def place_order(connection: psycopg.Connection, customer: str, cents: int) -> None:
    total = f"{cents // 100}.{cents % 100:02}"
    with connection.transaction():
        order = connection.execute(
            "INSERT INTO shop.orders (customer, total) VALUES (%s, %s) RETURNING id",
            (customer, total),
        ).fetchone()[0]
        # The key is the customer, so events of one customer are published in the order of these
        # calls. Two transactions for one customer may run at the same time. They need a lock on the
        # customer's row first, and the events are then in the order of the locks.
        connection.execute(
            """SELECT postrider.emit(
                event_type => 'shop.order.placed', payload => %s,
                aggregate_type => 'customer', aggregate_id => %s)""",
            (Json({"order": order, "customer": customer, "total": total}), customer),
        )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--database", default="postgresql://localhost/app")
    parser.add_argument("--orders", type=int, default=100)
    args = parser.parse_args()
    with psycopg.connect(args.database, autocommit=True) as connection:
        for _ in range(args.orders):
            place_order(connection, random.choice(CUSTOMERS), random.randint(100, 10_000))
    print(f"placed {args.orders} orders")


if __name__ == "__main__":
    main()
