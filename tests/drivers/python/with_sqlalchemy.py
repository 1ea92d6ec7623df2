"""emit() through SQLAlchemy, over psycopg and over asyncpg: text() and func."""

import asyncio

from sqlalchemy import Uuid, bindparam, create_engine, func, select, text
from sqlalchemy.dialects.postgresql import JSON, JSONB
from sqlalchemy.ext.asyncio import create_async_engine

from common import DOCUMENT, HEADERS, ID, ROWS, TEXT, URL, check

BY_TEXT = text("SELECT postrider.emit(:type, :payload, :aggregate, :key)")
EMIT = func.postrider.emit


def statements():
    """Pairs of a statement with its parameters, and the row it leaves."""
    key_types = (("o-1", None), (42, None), (2**40, None), (ID, Uuid()))
    for key, key_type in key_types:
        bound = bindparam("key", key, type_=key_type)
        parameters = {"type": "a", "payload": TEXT, "aggregate": "order", "key": key}
        typed = BY_TEXT.bindparams(bound) if key_type else BY_TEXT
        yield typed, parameters, (DOCUMENT, key, {})
        yield select(EMIT("a", TEXT, "order", bound)), {}, (DOCUMENT, key, {})
        for kind in (JSON, JSONB):
            payload = bindparam("payload", DOCUMENT, type_=kind())
            headers = bindparam("headers", HEADERS, type_=kind())
            call = select(EMIT("a", payload, "order", bound, headers))
            yield call, {}, (DOCUMENT, key, HEADERS)
    yield select(EMIT("a", TEXT)), {}, (DOCUMENT, None, {})
    events = bindparam("events", [{"event_type": "a", "payload": DOCUMENT}], type_=JSONB())
    yield select(func.postrider.emit_many(events)), {}, (DOCUMENT, None, {})


def with_psycopg():
    expected = []
    engine = create_engine(URL.replace("postgresql://", "postgresql+psycopg://"))
    with engine.begin() as connection:
        for statement, parameters, row in statements():
            connection.execute(statement, parameters)
            expected.append(row)
    return expected


async def with_asyncpg(expected):
    engine = create_async_engine(URL.replace("postgresql://", "postgresql+asyncpg://"))
    async with engine.begin() as connection:
        for statement, parameters, row in statements():
            # asyncpg sends a parameter of text() with the type that the server reports, which is
            # text.
            if "key" in parameters:
                parameters = parameters | {"key": str(parameters["key"])}
                statement = BY_TEXT
            await connection.execute(statement, parameters)
            expected.append(row)
        rows = [tuple(row) for row in await connection.execute(text(ROWS))]
    check(expected, rows)
    await engine.dispose()


asyncio.run(with_asyncpg(with_psycopg()))
