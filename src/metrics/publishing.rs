//! Metrics of messages between the outbox and the stream.

use std::time::Duration;

use prometheus_client::{
    metrics::{counter::Counter, family::Family, gauge::Gauge, histogram::Histogram},
    registry::{Registry, Unit},
};

use super::{
    SecondsGauge, count,
    labels::{BatchLabel, BatchResult, Failure, FailureLabel, ReasonLabel},
    seconds_histogram, unix_seconds,
};

/// Upper bounds of a histogram's buckets, in events that one settlement decides.
const BATCH: [f64; 11] = [1.0, 2.0, 5.0, 10.0, 25.0, 50.0, 100.0, 250.0, 500.0, 1000.0, 2500.0];

/// The codes of dead letters whose series exist from the start. The series of any other code
/// appears with its first letter.
const REASONS: [&str; 13] = [
    "invalid_subject",
    "subject_too_long",
    "subject_outside_prefix",
    "subject_not_captured",
    "missing_field",
    "two_payloads",
    "unrouted",
    "reserved_header",
    "invalid_header",
    "headers_too_large",
    "payload_too_large",
    "msg_id_collision",
    "rejected",
];

/// The metrics of messages.
#[derive(Debug)]
pub struct PublishingMetrics {
    published: Counter,
    deduplicated: Counter,
    failures: Family<FailureLabel, Counter>,
    retries: Counter,
    duration: Histogram,
    latency: Histogram,
    batch: Histogram,
    in_flight: Gauge,
    last_published: SecondsGauge,
    blocked: Gauge,
    dead_lettered: Family<ReasonLabel, Counter>,
    left_out: Counter,
    batches: Family<BatchLabel, Counter>,
}

/// The confirmations of one turn of the relay's loop. They are collected here, so that shared
/// counters are written once a turn.
#[derive(Debug, Default)]
pub struct PublishedBatch {
    published: u64,
    deduplicated: u64,
    duration_seconds: Vec<f64>,
    latency_seconds: Vec<f64>,
}

impl PublishedBatch {
    /// Notes a confirmation, with the time since the message was sent and, where it is known, the
    /// time since the row was written.
    pub fn stored(&mut self, since_sent: Duration, since_written: Option<Duration>) {
        self.published += 1;
        self.duration_seconds.push(since_sent.as_secs_f64());
        self.latency_seconds.extend(since_written.map(|since| since.as_secs_f64()));
    }

    /// Notes a confirmation that names the message a duplicate: the stream contained it already.
    pub fn deduplicated(&mut self, since_sent: Duration, since_written: Option<Duration>) {
        self.deduplicated += 1;
        self.stored(since_sent, since_written);
    }
}

impl PublishingMetrics {
    pub(super) fn register(list: &mut Registry) -> Self {
        let this = Self {
            published: Counter::default(),
            deduplicated: Counter::default(),
            failures: Family::default(),
            retries: Counter::default(),
            duration: seconds_histogram(),
            latency: seconds_histogram(),
            batch: Histogram::new(BATCH),
            in_flight: Gauge::default(),
            last_published: SecondsGauge::default(),
            blocked: Gauge::default(),
            dead_lettered: Family::default(),
            left_out: left_out(list),
            batches: batches(list),
        };
        for failure in Failure::ALL {
            drop(this.failures.get_or_create(&FailureLabel::of(*failure)));
        }
        for reason in REASONS {
            drop(this.dead_lettered.get_or_create(&ReasonLabel { reason }));
        }
        list.register(
            "messages_published",
            "Messages that the stream confirmed",
            this.published.clone(),
        );
        list.register(
            "messages_deduplicated",
            "Confirmed messages that the stream contained already",
            this.deduplicated.clone(),
        );
        list.register(
            "publish_failures",
            "Attempts to publish that were not confirmed",
            this.failures.clone(),
        );
        list.register(
            "publish_retries",
            "Messages sent again under the same id",
            this.retries.clone(),
        );
        list.register_with_unit(
            "publish_duration",
            "From sending a message to its confirmation",
            Unit::Seconds,
            this.duration.clone(),
        );
        list.register_with_unit(
            "delivery_latency",
            "From writing a row to the confirmation of its message",
            Unit::Seconds,
            this.latency.clone(),
        );
        list.register("batch_messages", "Events of one settlement", this.batch.clone());
        let help = "Messages sent and not yet answered";
        list.register("in_flight_messages", help, this.in_flight.clone());
        list.register_with_unit(
            "last_published_timestamp",
            "When the stream last confirmed a message (Unix), 0 before the first",
            Unit::Seconds,
            this.last_published.clone(),
        );
        let help = "Keys whose events wait behind a dead letter";
        list.register("blocked_aggregates", help, this.blocked.clone());
        list.register(
            "dead_lettered",
            "Events that became dead letters",
            this.dead_lettered.clone(),
        );
        this
    }

    /// Adds the confirmations of a turn to the metrics, and empties `batch` for the next turn. Its
    /// memory is kept.
    pub fn published(&self, batch: &mut PublishedBatch) {
        if batch.published == 0 {
            return;
        }
        self.published.inc_by(batch.published);
        self.deduplicated.inc_by(batch.deduplicated);
        for seconds in batch.duration_seconds.drain(..) {
            self.duration.observe(seconds);
        }
        for seconds in batch.latency_seconds.drain(..) {
            self.latency.observe(seconds);
        }
        (batch.published, batch.deduplicated) = (0, 0);
        self.last_published.set(unix_seconds());
    }

    /// Counts an attempt that was not confirmed.
    pub fn failed(&self, failure: Failure) {
        self.failures.get_or_create(&FailureLabel::of(failure)).inc();
    }

    /// Counts a message that is sent again under its id.
    pub fn retried(&self) {
        self.retries.inc();
    }

    /// Notes a committed settlement with this number of events.
    pub fn settled(&self, events: usize) {
        self.batch.observe(f64::from(u32::try_from(events).unwrap_or(u32::MAX)));
    }

    /// Counts an event that became a dead letter; `reason` is its code.
    pub fn dead_lettered(&self, reason: &'static str) {
        self.dead_lettered.get_or_create(&ReasonLabel { reason }).inc();
    }

    /// Counts headers of a trace context that could not be sent. Their events are sent without
    /// them.
    pub fn left_out(&self, headers: u64) {
        self.left_out.inc_by(headers);
    }

    /// Counts the result of a batch.
    pub fn batch(&self, result: BatchResult) {
        self.batches.get_or_create(&BatchLabel { result }).inc();
    }

    /// Sets the number of messages in flight and the number of keys that wait behind a dead letter.
    pub fn set_waiting(&self, in_flight: usize, blocked_aggregates: usize) {
        self.in_flight.set(count(in_flight));
        self.blocked.set(count(blocked_aggregates));
    }
}

fn batches(list: &mut Registry) -> Family<BatchLabel, Counter> {
    let family = Family::<BatchLabel, Counter>::default();
    for result in BatchResult::ALL {
        drop(family.get_or_create(&BatchLabel { result: *result }));
    }
    list.register("publish_batches", "Batches, by what became of them", family.clone());
    family
}

fn left_out(list: &mut Registry) -> Counter {
    let counter = Counter::default();
    let help = "Headers of a trace context that could not be sent";
    list.register("trace_headers_left_out", help, counter.clone());
    counter
}
