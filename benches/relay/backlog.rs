//! Events before they are relayed: their shape, a backlog of them, and those that are settled.

use anyhow::Result;
use tokio_postgres::Client;

/// The type of every event; its subject is `events.order.placed`.
pub(crate) const EVENT_TYPE: &str = "order.placed";

/// The type of every event's aggregate.
pub(crate) const AGGREGATE_TYPE: &str = "order";

/// Rows of one inserting transaction.
const CHUNK: u64 = 5_000;

/// What all events of a backlog have in common.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Shape {
    /// How many keys they are spread over, at random.
    pub(crate) keys: u32,
    /// Bytes of each payload.
    pub(crate) payload_bytes: usize,
}

/// What is measured unless something else is said.
pub(crate) const USUAL: Shape = Shape { keys: 10_000, payload_bytes: 500 };

impl Shape {
    /// A payload: JSON of the size that all have.
    pub(crate) fn payload(self) -> String {
        let around = r#"{"filler":""}"#.len();
        format!(r#"{{"filler":"{}"}}"#, "x".repeat(self.payload_bytes.saturating_sub(around)))
    }
}

/// Commits `count` events.
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

/// Makes everything that is committed settled, as the relay's settlement of the last row does it:
/// the position becomes the current snapshot, and all that was drawn is below its floor. Nobody may
/// be writing, and no relay running.
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

/// Lets the next relay begin in a stream of its own, as if none had been published into before.
pub(crate) async fn forget_stream(client: &Client) -> Result<()> {
    let statements = "
        DELETE FROM postrider.checkpoint;
        UPDATE postrider.position
        SET stream_name = NULL, stream_created_ns = NULL, stream_seq = 0, stream_event_id = NULL,
            stream_floor = 0";
    Ok(client.batch_execute(statements).await?)
}

/// Statistics and dirty pages are the writers' business, and come before what is measured.
pub(crate) async fn tidy(client: &Client) -> Result<()> {
    client.batch_execute("ANALYZE").await?;
    Ok(client.batch_execute("CHECKPOINT").await?)
}
