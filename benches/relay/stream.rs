//! The stream seen from outside: how much it holds, and when each message was stored.

use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use anyhow::{Context as _, Result, ensure};
use async_nats::jetstream::{self, stream::State};
use postrider::dev::stream_reader::count_messages;
use tokio::time::sleep;

use crate::{daemon::Daemon, measure::float};

/// Time between two polls; what is measured comes from the messages' own times.
const LOOK_INTERVAL: Duration = Duration::from_millis(20);

/// How long a stream may stay as it is while more is expected.
const SILENCE_MAX: Duration = Duration::from_mins(1);

/// Waits until a stream holds so many messages. Fails when the relay ends, or nothing comes.
pub(crate) async fn wait_for_count(
    jetstream: &jetstream::Context,
    stream: &str,
    wanted: u64,
    daemon: &mut Daemon,
) -> Result<u64> {
    let mut before = (Instant::now(), 0);
    loop {
        let count = count_messages(jetstream, stream).await?;
        if count >= wanted {
            return Ok(count);
        }
        daemon.ensure_alive()?;
        if count > before.1 {
            before = (Instant::now(), count);
        }
        let log = || daemon.log();
        ensure!(before.0.elapsed() < SILENCE_MAX, "stuck at {count} messages; log:\n{}", log());
        sleep(LOOK_INTERVAL).await;
    }
}

/// Waits until a stream has held the same number of messages for a while.
pub(crate) async fn settled_count(jetstream: &jetstream::Context, stream: &str) -> Result<u64> {
    let mut count = count_messages(jetstream, stream).await?;
    loop {
        sleep(LOOK_INTERVAL * 10).await;
        let next = count_messages(jetstream, stream).await?;
        if next == count {
            return Ok(count);
        }
        count = next;
    }
}

/// What the server says of a stream.
pub(crate) async fn state(jetstream: &jetstream::Context, stream: &str) -> Result<State> {
    Ok(jetstream.get_stream_no_info(stream).await?.get_info().await?.state)
}

/// How many messages there are, and how many a second came between the first and the last one, by
/// the times at which they were stored.
pub(crate) async fn rate(jetstream: &jetstream::Context, stream: &str) -> Result<(u64, f64)> {
    let state = state(jetstream, stream).await?;
    let seconds = (state.last_timestamp - state.first_timestamp).as_seconds_f64();
    Ok((state.messages, float(state.messages.saturating_sub(1)) / seconds))
}

/// When a message was stored.
pub(crate) async fn stored_at(
    jetstream: &jetstream::Context,
    stream: &str,
    sequence: u64,
) -> Result<SystemTime> {
    let stream = jetstream.get_stream(stream).await?;
    let message = stream.get_raw_message(sequence).await?;
    let nanoseconds = u64::try_from(message.time.unix_timestamp_nanos())?;
    UNIX_EPOCH.checked_add(Duration::from_nanos(nanoseconds)).context("a time after 1970")
}

/// Removes a stream and waits for the disk to have it.
pub(crate) async fn remove(jetstream: &jetstream::Context, stream: &str) -> Result<()> {
    jetstream.delete_stream(stream).await?;
    Ok(())
}
