"""emit() through psycopg 3: with bound parameters on the client's side and on the server's."""

import psycopg
from psycopg.types.json import Json, Jsonb

from common import DOCUMENT, HEADERS, ID, ROWS, TEXT, URL, check


def main():
    expected = []
    with psycopg.connect(URL) as connection:
        for cursor in (connection.cursor(), psycopg.ClientCursor(connection)):
            for payload in (TEXT, Json(DOCUMENT), Jsonb(DOCUMENT)):
                cursor.execute("SELECT postrider.emit('a', %s)", (payload,))
                expected.append((DOCUMENT, None, {}))
                for key in ("o-1", 42, 2**40, ID):
                    for headers in (None, '{"tenant": "acme"}', Json(HEADERS), Jsonb(HEADERS)):
                        cursor.execute(
                            "SELECT postrider.emit(%s, %s, %s, %s, %s)",
                            ("a", payload, "order", key, headers),
                        )
                        expected.append((DOCUMENT, key, HEADERS if headers else {}))
                    cursor.execute(
                        "SELECT postrider.emit(event_type => %(type)s, payload => %(payload)s,"
                        " aggregate_type => 'order', aggregate_id => %(key)s, event_version => 2)",
                        {"type": "a", "payload": payload, "key": key},
                    )
                    expected.append((DOCUMENT, key, {}))
            for events in (Json, Jsonb):
                event = {"event_type": "a", "payload": DOCUMENT}
                cursor.execute("SELECT postrider.emit_many(%s)", (events([event]),))
                expected.append((DOCUMENT, None, {}))
        check(expected, connection.execute(ROWS).fetchall())


main()
