"""What each driver has to show: the calls, and the rows that they must leave."""

import json
import os
import uuid

URL = os.environ["DATABASE_URL"]
DOCUMENT = {"b": 1.5, "a": [1, 2], "text": "größe"}
TEXT = json.dumps(DOCUMENT)
HEADERS = {"tenant": "acme"}
ID = uuid.UUID("0d9c5f3c-6f0e-4f0a-9a0e-0d7c4ef4b3a1")

# Query for all rows of the outbox, in types that every driver can read.
ROWS = "SELECT payload::text, aggregate_id, headers::text FROM postrider.outbox ORDER BY seq"


def check(expected, rows):
    """Compares the rows with the (payload, key, headers) that were sent."""
    assert len(rows) == len(expected), f"{len(rows)} rows of {len(expected)}"
    for (payload, key, headers), (stored, stored_key, stored_headers) in zip(expected, rows):
        assert json.loads(stored) == payload, (payload, stored)
        assert stored_key == (None if key is None else str(key)), (key, stored_key)
        assert json.loads(stored_headers) == headers, (headers, stored_headers)
    print(f"{len(expected)} calls, every row as sent")
