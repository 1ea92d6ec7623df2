//! The range of every number of the configuration, with the reason for both ends.

use std::{fmt::Display, ops::RangeInclusive, time::Duration};

use super::{
    Config,
    value::{ByteSize, HumanDuration},
};
use crate::delivery::LEASE_MAX;

/// Shorter would fail on a loaded machine, longer would resemble a hang.
pub const CONNECT_TIMEOUT: RangeInclusive<HumanDuration> = millis(100)..=seconds(300);

/// Shorter would give up healthy statements, longer would hide a dead connection.
pub const QUERY_TIMEOUT: RangeInclusive<HumanDuration> = millis(100)..=seconds(600);

/// Shorter would give up a healthy connection, longer would notice a dead one too late.
pub const PING_INTERVAL: RangeInclusive<HumanDuration> = millis(500)..=seconds(120);

/// Shorter would resend messages that are still in flight, longer would block a key behind one lost
/// answer.
pub const ACK_TIMEOUT: RangeInclusive<HumanDuration> = millis(100)..=seconds(300);

/// Copies that a JetStream cluster supports.
pub const REPLICAS: RangeInclusive<u8> = 1..=5;

/// Shorter would forget an id before its publish is repeated, longer would fill the broker's
/// memory. It must also cover twice `nats.ack_timeout` and a second.
pub const DUPLICATE_WINDOW: RangeInclusive<HumanDuration> = seconds(2)..=seconds(24 * 3600);

/// Zero keeps messages for ever. A stream that expires messages keeps them for its duplicate window
/// at least.
pub const MAX_AGE: RangeInclusive<HumanDuration> = seconds(0)..=seconds(3650 * 24 * 3600);

/// Zero sets no limit.
pub const MAX_BYTES: RangeInclusive<ByteSize> = ByteSize(0)..=ByteSize(1 << 50);

/// Zero would read nothing; more would keep more rows in memory than one round trip is worth.
pub const BATCH_EVENTS: RangeInclusive<u32> = 1..=100_000;

/// Zero would publish nothing; more than the broker answers in a second only waits elsewhere.
pub const IN_FLIGHT_EVENTS: RangeInclusive<u32> = 1..=65_536;

/// Less would send every event alone; more is memory that nobody expects of a sidecar.
pub const BUFFER_BYTES: RangeInclusive<ByteSize> = ByteSize(1 << 10)..=ByteSize(1 << 30);

/// Shorter would keep Postgres busy with polls; for longer waits there is `idle_interval`.
pub const POLL_INTERVAL: RangeInclusive<HumanDuration> = millis(1)..=seconds(1);

/// Shorter would make an idle relay busy; the wake-up gate expires 15 s after it was last renewed,
/// and it is renewed at this interval.
pub const IDLE_INTERVAL: RangeInclusive<HumanDuration> = millis(50)..=seconds(10);

/// Shorter would end at each stall of the database, longer would leave a frozen leader's place
/// empty.
pub const LEASE: RangeInclusive<HumanDuration> = seconds(3)..=HumanDuration(LEASE_MAX);

/// Zero would be no flow; more would cost more sessions than one Postgres should give.
pub const SHARDS: RangeInclusive<u32> = 1..=64;

/// Zero would try nothing; more would take years.
pub const ATTEMPTS: RangeInclusive<u32> = 1..=1_000_000;

/// Jitter is a part of a wait.
pub const JITTER: RangeInclusive<f64> = 0.0..=1.0;

/// Shorter would overload a broker that is busy, longer needs the decision of a person.
pub const RETRY_DELAY: RangeInclusive<HumanDuration> = millis(1)..=seconds(24 * 3600);

/// Shorter than a second would drop rows that an operator has no chance to see.
pub const RETENTION: RangeInclusive<HumanDuration> = seconds(1)..=seconds(3650 * 24 * 3600);

/// Shorter would cut off the last acks, longer exceeds the limit of every supervisor.
pub const GRACE: RangeInclusive<HumanDuration> = seconds(1)..=seconds(3600);

const fn millis(count: u64) -> HumanDuration {
    HumanDuration(Duration::from_millis(count))
}

const fn seconds(count: u64) -> HumanDuration {
    HumanDuration(Duration::from_secs(count))
}

/// A key, its value and its range.
#[derive(Debug)]
pub struct Bound {
    /// The key as `section.name`.
    pub key: &'static str,
    /// The value that it has.
    pub value: String,
    /// The range that it must be in, as in `100ms to 5m`.
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
