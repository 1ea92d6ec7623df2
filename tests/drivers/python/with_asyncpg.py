"""emit() through asyncpg, which asks the server for the type of each parameter."""

import asyncio
import json

import asyncpg

from common import DOCUMENT, HEADERS, ID, ROWS, TEXT, URL, check


async def main():
    expected = []
    connection = await asyncpg.connect(URL)
    for cast in ("", "::text", "::json", "::jsonb"):
        await connection.execute(f"SELECT postrider.emit('a', $1{cast})", TEXT)
        expected.append((DOCUMENT, None, {}))
        for key_cast, key in (("", "o-1"), ("::bigint", 42), ("::int", 42), ("::uuid", ID)):
            for headers_cast in ("", "::json", "::jsonb"):
                await connection.execute(
                    f"SELECT postrider.emit($1, $2{cast}, $3, $4{key_cast}, $5{headers_cast})",
                    "a", TEXT, "order", key, json.dumps(HEADERS),
                )
                expected.append((DOCUMENT, key, HEADERS))
            await connection.execute(
                f"SELECT postrider.emit(event_type => $1, payload => $2{cast},"
                f" aggregate_type => 'order', aggregate_id => $3{key_cast})",
                "a", TEXT, key,
            )
            expected.append((DOCUMENT, key, {}))
        events = json.dumps([{"event_type": "a", "payload": DOCUMENT}])
        await connection.execute(f"SELECT postrider.emit_many($1{cast})", events)
        expected.append((DOCUMENT, None, {}))

    # With a codec for json and jsonb the driver takes documents and headers as Python values.
    for name in ("json", "jsonb"):
        await connection.set_type_codec(
            name, encoder=json.dumps, decoder=json.loads, schema="pg_catalog"
        )
        await connection.execute(
            f"SELECT postrider.emit('a', $1::{name}, 'order', $2::uuid, $3::{name})",
            DOCUMENT, ID, HEADERS,
        )
        expected.append((DOCUMENT, ID, HEADERS))
    check(expected, [tuple(row) for row in await connection.fetch(ROWS)])
    await connection.close()


asyncio.run(main())
