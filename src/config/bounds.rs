//! The range of every number of the configuration, with the reason for both ends.

use std::{fmt::Display, ops::RangeInclusive, time::Duration};

use super::{
    Config,
    value::{ByteSize, HumanDuration},
};
use crate::delivery::LEASE_MAX;

/// Bounds of both `connect_timeout` keys. A shorter timeout would fail on a loaded machine, a
/// longer one would resemble a hang.
pub const CONNECT_TIMEOUT: RangeInclusive<HumanDuration> = millis(100)..=seconds(300);

/// Bounds of `database.query_timeout`. A shorter timeout would give up healthy statements, a longer
/// one would hide a dead connection.
pub const QUERY_TIMEOUT: RangeInclusive<HumanDuration> = millis(100)..=seconds(600);

/// Bounds of `nats.ping_interval`. A shorter interval would give up a healthy connection, a longer
/// one would notice a dead connection too late.
pub const PING_INTERVAL: RangeInclusive<HumanDuration> = millis(500)..=seconds(120);

/// Bounds of `nats.ack_timeout`. A shorter timeout would resend messages that are still in flight,
/// a longer one would block a key behind one lost answer.
pub const ACK_TIMEOUT: RangeInclusive<HumanDuration> = millis(100)..=seconds(300);

/// Bounds of `stream.replicas`: the numbers of copies that a JetStream cluster supports.
pub const REPLICAS: RangeInclusive<u8> = 1..=5;

/// Bounds of `stream.duplicate_window`. With a shorter window the broker would forget an id before
/// its publish is repeated, a longer one would fill the broker's memory. The window must also be at
/// least twice `nats.ack_timeout` plus a second.
pub const DUPLICATE_WINDOW: RangeInclusive<HumanDuration> = seconds(2)..=seconds(24 * 3600);

/// Bounds of `stream.max_age`. Zero keeps messages for ever. A stream that expires messages keeps
/// them for its duplicate window at least.
pub const MAX_AGE: RangeInclusive<HumanDuration> = seconds(0)..=seconds(3650 * 24 * 3600);

/// Bounds of `stream.max_bytes`. Zero sets no limit.
pub const MAX_BYTES: RangeInclusive<ByteSize> = ByteSize(0)..=ByteSize(1 << 50);

/// Bounds of `relay.batch_events`. Zero would read nothing; more than the upper bound would only
/// fill memory, because fewer round trips to Postgres save little by then.
pub const BATCH_EVENTS: RangeInclusive<u32> = 1..=100_000;

/// Bounds of `relay.in_flight_events`. Zero would publish nothing. More than the upper bound would
/// only wait in the broker instead of in the relay.
pub const IN_FLIGHT_EVENTS: RangeInclusive<u32> = 1..=65_536;

/// Bounds of `relay.batch_bytes` and `relay.in_flight_bytes`. Less would send every event alone;
/// more is memory that nobody expects a sidecar to use.
pub const BUFFER_BYTES: RangeInclusive<ByteSize> = ByteSize(1 << 10)..=ByteSize(1 << 30);

/// Bounds of `relay.poll_interval`. A shorter interval would keep Postgres busy with polls. For
/// longer waits there is `idle_interval`.
pub const POLL_INTERVAL: RangeInclusive<HumanDuration> = millis(1)..=seconds(1);

/// Bounds of `relay.idle_interval`. A shorter interval would make an idle relay busy. The upper
/// bound is below 15 s: the relay's loop turns at least at this interval, and `/livez` answers 503
/// after 15 s without a turn.
pub const IDLE_INTERVAL: RangeInclusive<HumanDuration> = millis(50)..=seconds(10);

/// Bounds of `relay.lease`. A shorter lease would end at each stall of the database. A longer one
/// would delay the takeover from a leader that froze.
pub const LEASE: RangeInclusive<HumanDuration> = seconds(3)..=HumanDuration(LEASE_MAX);

/// Bounds of `route.shards`. Zero would be no flow; more than the upper bound would cost more
/// sessions than one Postgres should give.
pub const SHARDS: RangeInclusive<u32> = 1..=64;

/// Bounds of `route.attempts`. Zero would try nothing; more than the upper bound would take years.
pub const ATTEMPTS: RangeInclusive<u32> = 1..=1_000_000;

/// Bounds of `route.jitter`, the part of a wait between two attempts that is drawn at random: from
/// nothing to all of it.
pub const JITTER: RangeInclusive<f64> = 0.0..=1.0;

/// Bounds of `route.delay` and `route.max_delay`. Shorter waits would overload a broker that is
/// busy. A message that waits for longer needs the decision of a person.
pub const RETRY_DELAY: RangeInclusive<HumanDuration> = millis(1)..=seconds(24 * 3600);

/// Bounds of the three `retention` keys. Less than a second would drop rows before an operator has
/// a chance to see them.
pub const RETENTION: RangeInclusive<HumanDuration> = seconds(1)..=seconds(3650 * 24 * 3600);

/// Bounds of `shutdown.grace`. A shorter time would cut off the last acks, a longer one exceeds the
/// limit of every supervisor.
pub const GRACE: RangeInclusive<HumanDuration> = seconds(1)..=seconds(3600);

const fn millis(count: u64) -> HumanDuration {
    HumanDuration(Duration::from_millis(count))
}

const fn seconds(count: u64) -> HumanDuration {
    HumanDuration(Duration::from_secs(count))
}

/// A key of the configuration that has a range, with its value and that range.
#[derive(Debug)]
pub struct Bound {
    /// The key as `section.name`.
    pub key: &'static str,
    /// The value that the key has in the configuration.
    pub value: String,
    /// The range that the value must be in, as in `100ms to 5m`.
    pub range: String,
    /// Whether the value is in the range.
    pub holds: bool,
}

/// All keys with a range, each with its value in `config`.
pub fn all(config: &Config) -> [Bound; 25] {
    let Config { database, nats, stream, relay, route, shutdown, .. } = config;
    [
        bound("database.connect_timeout", &database.connect_timeout, &CONNECT_TIMEOUT),
        bound("database.query_timeout", &database.query_timeout, &QUERY_TIMEOUT),
        bound("nats.connect_timeout", &nats.connect_timeout, &CONNECT_TIMEOUT),
        bound("nats.ping_interval", &nats.ping_interval, &PING_INTERVAL),
        bound("nats.ack_timeout", &nats.ack_timeout, &ACK_TIMEOUT),
        bound("stream.replicas", &stream.replicas, &REPLICAS),
        bound("stream.duplicate_window", &stream.duplicate_window, &DUPLICATE_WINDOW),
        bound("stream.max_age", &stream.max_age, &MAX_AGE),
        bound("stream.max_bytes", &stream.max_bytes, &MAX_BYTES),
        bound("relay.batch_events", &relay.batch_events, &BATCH_EVENTS),
        bound("relay.batch_bytes", &relay.batch_bytes, &BUFFER_BYTES),
        bound("relay.in_flight_events", &relay.in_flight_events, &IN_FLIGHT_EVENTS),
        bound("relay.in_flight_bytes", &relay.in_flight_bytes, &BUFFER_BYTES),
        bound("relay.poll_interval", &relay.poll_interval, &POLL_INTERVAL),
        bound("relay.idle_interval", &relay.idle_interval, &IDLE_INTERVAL),
        bound("relay.lease", &relay.lease, &LEASE),
        bound("relay.retention", &relay.retention, &RETENTION),
        bound("relay.letter_retention", &relay.letter_retention, &RETENTION),
        bound("relay.audit_retention", &relay.audit_retention, &RETENTION),
        bound("route.shards", &route.shards, &SHARDS),
        bound("route.attempts", &route.attempts, &ATTEMPTS),
        bound("route.delay", &route.delay, &RETRY_DELAY),
        bound("route.jitter", &route.jitter, &JITTER),
        bound("route.max_delay", &route.max_delay, &RETRY_DELAY),
        bound("shutdown.grace", &shutdown.grace, &GRACE),
    ]
}

/// The range of `key`; `None` when it has none.
pub(super) fn range_of(key: &str) -> Option<String> {
    all(&Config::default()).into_iter().find(|bound| bound.key == key).map(|bound| bound.range)
}

fn bound<T: PartialOrd + Display>(
    key: &'static str,
    value: &T,
    range: &RangeInclusive<T>,
) -> Bound {
    Bound {
        key,
        value: value.to_string(),
        range: format!("{} to {}", range.start(), range.end()),
        holds: range.contains(value),
    }
}
