//! Metrics: typed handles for all counters, gauges and histograms, made at the start and passed to
//! the parts that count.
//!
//! Names follow the conventions of Prometheus: base units, `_total`, no ids as labels. Every
//! labelled series exists from the start with 0, so that an alert on its rate sees the first
//! increase. `docs/metrics.md` describes each of them, and a test compares it with this module.

mod chores;
mod configuration;
mod dependencies;
mod labels;
mod measured;
mod merge;
mod outbox;
mod process;
mod publishing;

use std::{
    borrow::Cow,
    sync::atomic::AtomicU64,
    time::{Instant, SystemTime, UNIX_EPOCH},
};

use prometheus_client::{
    encoding::text,
    metrics::{gauge::Gauge, histogram::Histogram, info::Info},
    registry::Registry,
};

pub use chores::ChoreMetrics;
pub use configuration::ConfigurationMetrics;
pub use dependencies::DependencyMetrics;
pub use labels::{
    BatchResult, Chore, CircuitState, Dependency, Failure, FindingCode, LetterState, Measurement,
    Query, Retryable, Table,
};
pub use measured::{Depth, Measured, OVERDUE};
pub use outbox::{OutboxMetrics, QueryDurations};
pub use publishing::{PublishedBatch, PublishingMetrics};

/// Upper bounds of the histograms' buckets in seconds: half a millisecond for a broker nearby, then
/// the usual steps.
const SECONDS: [f64; 17] = [
    0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.075, 0.1, 0.25, 0.5, 0.75, 1.0, 2.5, 5.0,
    7.5, 10.0,
];

/// The prefix of every name but those of the process.
const PREFIX: &str = "postrider";

/// The media type of [`ProgramMetrics::encode`].
pub const CONTENT_TYPE: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

type SecondsGauge = Gauge<f64, AtomicU64>;

/// The metrics that exist once for the program, and the page with all metrics.
#[derive(Debug)]
pub struct ProgramMetrics {
    registry: Registry,
    queries: QueryDurations,
    /// Whether the last reload of the configuration succeeded, and the time of the last success.
    pub configuration: ConfigurationMetrics,
}

/// The metrics of one flow, by the part that they measure. Each series has the label `route`.
#[derive(Debug)]
pub struct FlowMetrics {
    registry: Registry,
    /// Metrics of the messages that go from the outbox to the stream.
    pub publishing: PublishingMetrics,
    /// Metrics of the tables that the relay reads and writes, and of its statements.
    pub outbox: OutboxMetrics,
    /// Metrics of the connections to Postgres and NATS, of the breaker and of the lease.
    pub dependencies: DependencyMetrics,
    /// Metrics of the chores, which are periodic work beside the data path, and of the findings.
    pub chores: ChoreMetrics,
}

impl Default for ProgramMetrics {
    fn default() -> Self {
        Self::new()
    }
}

impl ProgramMetrics {
    /// Registers the metrics that the program has once.
    pub fn new() -> Self {
        let mut registry = Registry::default();
        registry.register_collector(Box::new(process::Process));
        let list = registry.sub_registry_with_prefix(PREFIX);
        let build = [
            ("version", env!("CARGO_PKG_VERSION")),
            ("commit", option_env!("POSTRIDER_COMMIT").unwrap_or("unknown")),
        ];
        list.register("build", "The running program", Info::new(build));
        let queries = QueryDurations::register(list);
        let configuration = ConfigurationMetrics::register(list);
        Self { registry, queries, configuration }
    }

    /// Creates the metrics of the flow of a route. Each series begins at 0.
    pub fn flow(&self, route: &str) -> FlowMetrics {
        let mut registry = Registry::default();
        let label = (Cow::Borrowed("route"), Cow::Owned(route.to_owned()));
        let list = registry.sub_registry_with_prefix(PREFIX).sub_registry_with_label(label);
        let publishing = PublishingMetrics::register(list);
        let outbox = OutboxMetrics::register(list, self.queries.clone());
        let dependencies = DependencyMetrics::register(list);
        let chores = ChoreMetrics::register(list);
        FlowMetrics { registry, publishing, outbox, dependencies, chores }
    }

    /// Everything as `OpenMetrics` text, which Prometheus reads as well.
    pub fn encode<'a>(&self, flows: impl IntoIterator<Item = &'a FlowMetrics>) -> String {
        let mut pages = vec![page(&self.registry)];
        for flow in flows {
            flow.outbox.refresh(Instant::now());
            pages.push(page(&flow.registry));
        }
        merge::pages(&pages)
    }
}

fn page(registry: &Registry) -> String {
    let mut page = String::with_capacity(16 * 1024);
    // Writing to a string does not fail. After an error of one metric the rest is still of use.
    if text::encode(&mut page, registry).is_err() {
        tracing::error!(
            "a metric could not be encoded: /metrics is incomplete this time, and publishing is not affected"
        );
    }
    page
}

fn seconds_histogram() -> Histogram {
    Histogram::new(SECONDS)
}

fn unix_seconds() -> f64 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs_f64()
}

/// Converts a count to the value of a gauge. A count above `i64::MAX` cannot occur, and would
/// become `i64::MAX`.
fn count(value: impl TryInto<i64>) -> i64 {
    value.try_into().unwrap_or(i64::MAX)
}

#[cfg(test)]
mod tests;
