//! What the relay may do to the outbox tables.
