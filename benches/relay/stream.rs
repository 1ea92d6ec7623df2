//! Reads the stream without the relay: how many messages it contains, and when each was stored.

use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use anyhow::{Context as _, Result, ensure};
use async_nats::jetstream::{self, stream::State};
use postrider::dev::stream_reader::count_messages;
use tokio::time::sleep;

use crate::{daemon::Daemon, measure::float};

/// Pause between two requests for the number of messages. Rates do not depend on it, because they
/// are computed from the messages' own timestamps.
const LOOK_INTERVAL: Duration = Duration::from_millis(20);

/// Longest time for which the number of messages may stay the same while more are expected.
const SILENCE_MAX: Duration = Duration::from_mins(1);

/// Waits until a stream contains at least this many messages. Fails when the relay ends, or when no
/// message arrives for a minute.
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

/// Waits until the number of messages in a stream has not changed for 200 ms.
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

/// State of a stream as the server reports it.
pub(crate) async fn state(jetstream: &jetstream::Context, stream: &str) -> Result<State> {
    Ok(jetstream.get_stream_no_info(stream).await?.get_info().await?.state)
}

/// Number of messages in a stream, and messages per second between the first and the last one, by
/// their timestamps.
pub(crate) async fn rate(jetstream: &jetstream::Context, stream: &str) -> Result<(u64, f64)> {
    let state = state(jetstream, stream).await?;
    let seconds = (state.last_timestamp - state.first_timestamp).as_seconds_f64();
    Ok((state.messages, float(state.messages.saturating_sub(1)) / seconds))
}

/// Time at which a message was stored.
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

/// Removes a stream.
pub(crate) async fn remove(jetstream: &jetstream::Context, stream: &str) -> Result<()> {
    jetstream.delete_stream(stream).await?;
    Ok(())
}
