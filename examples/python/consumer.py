"""Adds up what each customer spends: every order once, however often it is delivered.

    python consumer.py --database postgresql://localhost/app --nats nats://localhost:4222

The rule is: claim the event's id in the transaction of its effect, commit, then acknowledge.
Whatever goes wrong, this program ends and is started again. What it had not committed is delivered
again and applied; what it had committed and not acknowledged is delivered again and skipped.
"""

import argparse
import asyncio
import json

import nats
import psycopg
from nats.aio.msg import Msg
from nats.js.api import ConsumerConfig

# Name under which ids are claimed, and name of the durable consumer. All instances share it.
CONSUMER = "spending"


async def apply(connection: psycopg.AsyncConnection, message: Msg) -> None:
    event_id = message.headers["Nats-Msg-Id"]
    async with connection.transaction():
        cursor = await connection.execute(
            "SELECT postrider.claim(%s, %s::uuid)", (CONSUMER, event_id)
        )
        (is_new,) = await cursor.fetchone()
        if not is_new:
            return
        order = json.loads(message.data)
        await connection.execute(
            """INSERT INTO shop.spending AS s (customer, orders, total) VALUES (%s, 1, %s)
            ON CONFLICT (customer) DO UPDATE
            SET orders = s.orders + 1, total = s.total + excluded.total""",
            (order["customer"], order["total"]),
        )


async def consume(args: argparse.Namespace) -> None:
    broker = await nats.connect(args.nats)
    subscription = await broker.jetstream().pull_subscribe(
        args.subject,
        durable=CONSUMER,
        stream=args.stream,
        # After this many seconds without an acknowledgement a message is delivered again.
        config=ConsumerConfig(ack_wait=args.ack_wait),
    )
    async with await psycopg.AsyncConnection.connect(args.database, autocommit=True) as connection:
        while True:
            try:
                messages = await subscription.fetch(batch=20, timeout=args.idle or 5)
            except asyncio.TimeoutError:  # also catches its subclass nats.errors.TimeoutError
                if args.idle:
                    break
                continue
            for message in messages:
                await apply(connection, message)
                await message.ack()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--database", default="postgresql://localhost/app")
    parser.add_argument("--nats", default="nats://localhost:4222")
    parser.add_argument("--stream", default="EVENTS")
    parser.add_argument("--subject", default="events.shop.order.placed")
    parser.add_argument("--ack-wait", type=float, default=30)
    parser.add_argument("--idle", type=float, help="end after so many seconds without a message")
    asyncio.run(consume(parser.parse_args()))


if __name__ == "__main__":
    main()
