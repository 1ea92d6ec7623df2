//! A workload's ledger against what the stream and the tables hold, once everything is at rest.

use std::time::Duration;

use postrider::dev::{
    checker::{CheckerReport, Ledger, Observed, Order, check},
    stream_reader,
    workload::{Options, Workload},
};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::{DEADLINE, Fixture, let_pass};

/// Rows that the depth statement counts one by one.
const COUNT_MAX: i64 = 10;

/// Long enough for a relay that gets anything done.
const DRAIN_DEADLINE: Duration = Duration::from_mins(4);

/// Workload of so many events a second over so many keys.
pub(crate) fn steady(events_per_second: u32, keys: u32) -> Options {
    Options { events_per_second: Some(events_per_second), keys, ..Options::default() }
}

/// The same, with transactions that draw their number early or are held open.
pub(crate) fn awkward(events_per_second: u32, keys: u32) -> Options {
    let load = steady(events_per_second, keys);
    Options { early_xid_percent: 5, held_open_percent: 5, ..load }
}

/// Runs a workload without end for as long as the fault lasts; its ledger, and what the fault
/// gives.
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
    /// The workload of these options on this test's outbox, not yet running.
    pub(crate) fn workload(&self, options: Options) -> Workload {
        Workload::new(Options {
            url: self.database_url(),
            subject_prefix: format!("{}.", self.prefix),
            ..options
        })
    }

    /// Runs a workload for as long as the fault lasts, waits until everything is settled, and
    /// insists on a clean audit. Returns the report and what the fault gives.
    ///
    /// The fault gets the fixture back, for it may stop and start the fixture's servers.
    pub(crate) async fn under_load<T>(
        &mut self,
        options: Options,
        fault: impl AsyncFnOnce(&mut Self) -> T,
    ) -> (CheckerReport, T) {
        let workload = self.workload(Options { events: u64::MAX, ..options });
        let (ledger, given) = work_during(workload, Box::pin(fault(self))).await;
        (self.audit(&ledger, Order::Serial).await, given)
    }

    /// Runs a workload to its end.
    pub(crate) async fn work(&self, options: Options) -> Ledger {
        self.workload(options).run(&CancellationToken::new()).await.unwrap()
    }

    /// How many events the relay has not settled, up to 10, by its own position; `None` before it
    /// has one.
    pub(crate) async fn unsettled(&self, client: &tokio_postgres::Client) -> Option<i64> {
        self.unsettled_of(client, "default").await
    }

    /// As [`Fixture::unsettled`], of the relay of that name.
    pub(crate) async fn unsettled_of(
        &self,
        client: &tokio_postgres::Client,
        relay: &str,
    ) -> Option<i64> {
        let statement = include_str!("../../../src/outbox/sql/measure_depth.sql");
        let row = client.query_opt(statement, &[&relay, &COUNT_MAX]).await.unwrap();
        row.map(|row| row.get("pending"))
    }

    /// Waits until the relay has settled everything that is committed. False at the deadline: then
    /// the checker shall say what is missing.
    pub(crate) async fn wait_drained(&self, deadline: Duration) -> bool {
        self.wait_drained_by("default", deadline).await
    }

    /// As [`Fixture::wait_drained`], of the relay of that name.
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

    /// Where the events are.
    pub(crate) async fn observe(&self) -> Observed {
        self.observe_in(&self.stream, ("", "")).await
    }

    /// As [`Fixture::observe`], in another stream whose subjects begin otherwise.
    pub(crate) async fn observe_in(&self, stream: &str, renamed: (&str, &str)) -> Observed {
        // A cluster that has just changed its leader refuses for a moment.
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

    /// Waits until the relay has settled everything, and insists that each committed event is in
    /// the stream once, as its row says, in the order of its key, and that nothing else is there.
    pub(crate) async fn audit(&self, ledger: &Ledger, order: Order) -> CheckerReport {
        let drained = self.wait_drained(DRAIN_DEADLINE).await;
        let report = check(ledger, &self.observe().await, order);
        assert!(report.is_clean() && drained, "{report}\nall settled by the relay: {drained}");
        assert_eq!((report.dead, report.limbo), (0, 0), "{report}");
        report
    }
}
