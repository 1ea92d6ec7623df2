//! Compares the record of a workload (its ledger) with the stream and the tables, once all events
//! are settled.

use std::time::Duration;

use postrider::dev::{
    checker::{CheckerReport, Ledger, Observed, Order, check},
    stream_reader,
    workload::{Options, Workload},
};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::{DEADLINE, Fixture, let_pass};

/// Largest number of unsettled events that the statement counts exactly.
const COUNT_MAX: i64 = 10;

/// Deadline in which a working relay settles every backlog of these tests.
const DRAIN_DEADLINE: Duration = Duration::from_mins(4);

/// Options of a workload with this many events per second on this many keys.
pub(crate) fn steady(events_per_second: u32, keys: u32) -> Options {
    Options { events_per_second: Some(events_per_second), keys, ..Options::default() }
}

/// Options of a steady workload in which some transactions draw their number early or stay open.
pub(crate) fn awkward(events_per_second: u32, keys: u32) -> Options {
    let load = steady(events_per_second, keys);
    Options { early_xid_percent: 5, held_open_percent: 5, ..load }
}

/// Runs an endless workload while `fault` runs. Returns the workload's ledger and the result of
/// `fault`.
pub(crate) async fn work_during<T>(
    workload: Workload,
    fault: impl Future<Output = T>,
) -> (Ledger, T) {
    let stop = CancellationToken::new();
    let fault = async {
        let given = fault.await;
        stop.cancel();
        given
    };
    let (ledger, given) = tokio::join!(workload.run(&stop), fault);
    (ledger.expect("a workload that outlives the fault"), given)
}

impl Fixture {
    /// Makes a workload with these options on this test's outbox. It does not run yet.
    pub(crate) fn workload(&self, options: Options) -> Workload {
        Workload::new(Options {
            url: self.database_url(),
            subject_prefix: format!("{}.", self.prefix),
            ..options
        })
    }

    /// Runs a workload while `fault` runs, waits until everything is settled, and asserts a clean
    /// audit. Returns the report and the result of `fault`.
    ///
    /// `fault` gets the fixture, because it may stop and start the fixture's servers.
    pub(crate) async fn under_load<T>(
        &mut self,
        options: Options,
        fault: impl AsyncFnOnce(&mut Self) -> T,
    ) -> (CheckerReport, T) {
        let workload = self.workload(Options { events: u64::MAX, ..options });
        let (ledger, given) = work_during(workload, Box::pin(fault(self))).await;
        (self.audit(&ledger, Order::Serial).await, given)
    }

    /// Runs a workload until it has written all its events. Returns its ledger.
    pub(crate) async fn work(&self, options: Options) -> Ledger {
        self.workload(options).run(&CancellationToken::new()).await.unwrap()
    }

    /// Number of events that the relay `default` has not settled, at most 10. `None` while the
    /// relay has no position.
    pub(crate) async fn unsettled(&self, client: &tokio_postgres::Client) -> Option<i64> {
        self.unsettled_of(client, "default").await
    }

    /// Number of events that this relay has not settled, at most 10. `None` while the relay has no
    /// position.
    pub(crate) async fn unsettled_of(
        &self,
        client: &tokio_postgres::Client,
        relay: &str,
    ) -> Option<i64> {
        let statement = include_str!("../../../src/outbox/sql/measure_depth.sql");
        let row = client.query_opt(statement, &[&relay, &COUNT_MAX]).await.unwrap();
        row.map(|row| row.get("pending"))
    }

    /// Waits until the relay `default` has settled every committed event. Returns false at the
    /// deadline, so that the caller's check can report what is missing.
    pub(crate) async fn wait_drained(&self, deadline: Duration) -> bool {
        self.wait_drained_by("default", deadline).await
    }

    /// Waits until this relay has settled every committed event. Returns false at the deadline.
    pub(crate) async fn wait_drained_by(&self, relay: &str, deadline: Duration) -> bool {
        let client = self.connect().await;
        let end = Instant::now() + deadline;
        while self.unsettled_of(&client, relay).await != Some(0) {
            if Instant::now() > end {
                return false;
            }
            let_pass(Duration::from_millis(20)).await;
        }
        true
    }

    /// Reads the test's stream and tables, for a comparison with a ledger.
    pub(crate) async fn observe(&self) -> Observed {
        self.observe_in(&self.stream, ("", "")).await
    }

    /// Reads another stream and the tables. In the stream's subjects the first prefix of `renamed`
    /// is replaced by the second.
    pub(crate) async fn observe_in(&self, stream: &str, renamed: (&str, &str)) -> Observed {
        // A cluster that has just elected a leader refuses requests for a moment, so reading is
        // repeated.
        let end = Instant::now() + DEADLINE;
        let stream = loop {
            match stream_reader::read_renamed(&self.nats.url(), stream, renamed).await {
                Ok(stream) => break stream,
                Err(error) => assert!(Instant::now() < end, "{error}"),
            }
            let_pass(Duration::from_millis(50)).await;
        };
        let client = self.connect().await;
        let letters = async |states: &[&str]| {
            let statement = r#"SELECT event_id FROM "postrider".letter
                WHERE state = ANY ($1) AND resolved_at IS NULL"#;
            let rows = client.query(statement, &[&states]).await.unwrap();
            rows.iter().map(|row| row.get(0)).collect()
        };
        Observed {
            stream,
            dead: letters(&["dead"]).await,
            pending: letters(&["held", "retrying"]).await,
        }
    }

    /// Waits until the relay has settled every committed event. Asserts that the stream has each of
    /// them once, with the content of its row, in the order of its key, and has nothing else.
    pub(crate) async fn audit(&self, ledger: &Ledger, order: Order) -> CheckerReport {
        let drained = self.wait_drained(DRAIN_DEADLINE).await;
        let report = check(ledger, &self.observe().await, order);
        assert!(report.is_clean() && drained, "{report}\nall settled by the relay: {drained}");
        assert_eq!((report.dead, report.limbo), (0, 0), "{report}");
        report
    }
}
