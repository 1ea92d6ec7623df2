//! Makes the events that a benchmark relays: their shape, a backlog of them, and settled ones.

use anyhow::Result;
use tokio_postgres::Client;

/// The type of every event; its subject is `events.order.placed`.
pub(crate) const EVENT_TYPE: &str = "order.placed";

/// The type of every event's aggregate.
pub(crate) const AGGREGATE_TYPE: &str = "order";

/// Number of rows that one inserting transaction commits, at most.
const CHUNK: u64 = 5_000;

/// Number of keys and payload size of all events of a backlog.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Shape {
    /// Number of different keys. Each event gets one of them at random.
    pub(crate) keys: u32,
    /// Bytes of each payload.
    pub(crate) payload_bytes: usize,
}

/// Shape of the events in every part of the benchmark that does not name another one.
pub(crate) const USUAL: Shape = Shape { keys: 10_000, payload_bytes: 500 };

impl Shape {
    /// Makes a payload: JSON of `payload_bytes` bytes.
    pub(crate) fn payload(self) -> String {
        let around = r#"{"filler":""}"#.len();
        format!(r#"{{"filler":"{}"}}"#, "x".repeat(self.payload_bytes.saturating_sub(around)))
    }
}

/// Commits `count` events of this shape to the outbox.
pub(crate) async fn insert(client: &Client, shape: Shape, count: u64) -> Result<()> {
    let insert = client
        .prepare(
            "INSERT INTO postrider.outbox (event_type, aggregate_type, aggregate_id, payload) \
             SELECT $1, $2, floor(random() * $3::integer)::integer::text, $4::text::json \
             FROM generate_series(1, $5::bigint)",
        )
        .await?;
    client.execute("SELECT setseed(0.5)", &[]).await?;
    let (keys, payload) = (i32::try_from(shape.keys)?, shape.payload());
    let mut left = count;
    while left > 0 {
        let rows = left.min(CHUNK);
        let rows_int = i64::try_from(rows)?;
        client
            .execute(&insert, &[&EVENT_TYPE, &AGGREGATE_TYPE, &keys, &payload, &rows_int])
            .await?;
        left -= rows;
    }
    Ok(())
}

/// Marks every committed event as settled, as the relay does after it has published the last one.
/// The position becomes the current snapshot, with all sequence numbers drawn so far below its
/// floor. No writer and no relay may run meanwhile.
pub(crate) async fn settle(client: &Client) -> Result<()> {
    let statement = "
        INSERT INTO postrider.position AS p
            (relay, snapshot, floor, target, target_floor, drawn, system_id)
        SELECT 'default', now.snapshot, now.drawn, now.snapshot, now.drawn, now.drawn,
               (SELECT system_identifier FROM pg_control_system())
        FROM (SELECT pg_current_snapshot() AS snapshot,
                     pg_sequence_last_value('postrider.outbox_seq_seq'::regclass) AS drawn) AS now
        ON CONFLICT (relay) DO UPDATE
            SET snapshot = excluded.snapshot, floor = excluded.floor, target = excluded.target,
                target_floor = excluded.target_floor, bookmark = 0, drawn = excluded.drawn";
    client.execute(statement, &[]).await?;
    Ok(())
}

/// Erases what the database records about its stream. The next relay then accepts a new stream as
/// if nothing had ever been published.
pub(crate) async fn forget_stream(client: &Client) -> Result<()> {
    let statements = "
        DELETE FROM postrider.checkpoint;
        UPDATE postrider.position
        SET stream_name = NULL, stream_created_ns = NULL, stream_seq = 0, stream_event_id = NULL,
            stream_floor = 0";
    Ok(client.batch_execute(statements).await?)
}

/// Updates the planner's statistics and writes dirty pages to disk, so that neither happens while
/// something is measured.
pub(crate) async fn tidy(client: &Client) -> Result<()> {
    client.batch_execute("ANALYZE").await?;
    Ok(client.batch_execute("CHECKPOINT").await?)
}
