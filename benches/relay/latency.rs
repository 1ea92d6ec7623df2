//! Measures the time from the writer's commit to the broker's acknowledgement, and what the relay
//! costs writers.

use std::{
    collections::HashMap,
    time::{Duration, Instant},
};

use anyhow::{Result, ensure};
use tokio_postgres::Client;
use uuid::Uuid;

use crate::{
    acks::Acks,
    daemon::Daemon,
    goals,
    load::{self, Committed, Rate},
    measure::{Measure, float, last, quantile, sorted},
    number::number_of,
    options::Options,
    progress::note,
    report::Report,
    stage::{Stage, wait_for_relay},
    stream,
};

const STREAM: &str = "LATENCY";

/// Names of the databases with and without a relay. In the latter the wake-up gate was never
/// opened.
const WITH: &str = "latency_with";
const WITHOUT: &str = "latency_without";

/// Rates at which events are written. Four writers reach the last rate only with several events per
/// transaction.
const RATES: [Rate; 3] = [
    Rate { events: 200, together: 1 },
    Rate { events: JUDGED, together: 1 },
    Rate { events: 20_000, together: 10 },
];

/// Events per second at which the duration of the writers' COMMIT is judged.
const JUDGED: u32 = 2000;

#[derive(Default)]
struct Rounds {
    median_ms: Vec<f64>,
    late_ms: Vec<f64>,
    latest_ms: Vec<f64>,
    commit_us: Vec<f64>,
    commit_ratio: Vec<f64>,
    transaction_ratio: Vec<f64>,
    relay_percent: Vec<f64>,
    /// Events per second that the writers really reached beside the relay.
    reached: Vec<f64>,
}

pub(crate) async fn run(stage: &Stage, options: &Options) -> Result<Report> {
    let mut measures = Vec::new();
    let client = stage.database(WITH).await?;
    drop(stage.database(WITHOUT).await?);
    for rate in RATES {
        let mut rounds = Rounds::default();
        for round in 1..=options.rounds() {
            let time = options.load_time();
            let alone = load::run(&stage.postgres.url(WITHOUT), rate, time).await?;
            let relayed = relayed(stage, &client, rate, time).await?;
            rounds.take(&alone, &relayed, time);
            note(&format!(
                "latency at {}/s, {round}: p50 {:.2} ms, p99 {:.2} ms, commit × {:.2}",
                rate.events,
                last(&rounds.median_ms),
                last(&rounds.late_ms),
                last(&rounds.commit_ratio)
            ));
        }
        measures.extend(rounds.measures(rate.events));
    }
    Ok(Report::of(measures))
}

struct Relayed {
    committed: Vec<Committed>,
    acked: HashMap<Uuid, Instant>,
    relay_seconds: f64,
}

async fn relayed(stage: &Stage, client: &Client, rate: Rate, time: Duration) -> Result<Relayed> {
    let mut daemon = stage.relay(WITH, STREAM)?;
    wait_for_relay(client, &mut daemon).await?;
    let before = stream::settled_count(&stage.jetstream, STREAM).await?;
    let acks = Acks::listen(stage).await?;
    let relay_before = daemon.cpu_seconds()?;
    let committed = load::run(&stage.postgres.url(WITH), rate, time).await?;
    let relay_seconds = daemon.cpu_seconds()? - relay_before;
    let acked = wait_for_acks(stage, daemon, acks, before + committed.len() as u64).await?;
    Ok(Relayed { committed, acked, relay_seconds })
}

async fn wait_for_acks(
    stage: &Stage,
    mut daemon: Daemon,
    acks: Acks,
    expected: u64,
) -> Result<HashMap<Uuid, Instant>> {
    stream::wait_for_count(&stage.jetstream, STREAM, expected, &mut daemon).await?;
    let stored = stream::settled_count(&stage.jetstream, STREAM).await?;
    ensure!(stored == expected, "{stored} messages, expected {expected}");
    daemon.stop().await?;
    acks.collect().await
}

impl Rounds {
    fn take(&mut self, alone: &[Committed], relayed: &Relayed, time: Duration) {
        let waits = |measured: fn(&Committed) -> Duration, load: &[Committed]| {
            sorted(load.iter().map(|event| measured(event).as_secs_f64() * 1e6).collect())
        };
        let median = |measured, load| quantile(&waits(measured, load), 0.5);
        let commit = |event: &Committed| event.commit;
        let transaction = |event: &Committed| event.transaction;
        let commit_alone = median(commit, alone);
        self.commit_us.push(commit_alone);
        self.commit_ratio.push(median(commit, &relayed.committed) / commit_alone);
        let transaction_alone = median(transaction, alone);
        let transaction_ratio = median(transaction, &relayed.committed) / transaction_alone;
        self.transaction_ratio.push(transaction_ratio);
        let latencies = relayed.latencies();
        self.median_ms.push(quantile(&latencies, 0.5));
        self.late_ms.push(quantile(&latencies, 0.99));
        self.latest_ms.push(quantile(&latencies, 0.999));
        self.relay_percent.push(relayed.relay_seconds / time.as_secs_f64() * 100.0);
        self.reached.push(relayed.rate());
    }

    fn measures(self, rate: u32) -> Vec<Measure> {
        let name = |what: &str| format!("{what} at {}/s", number_of(u64::from(rate)));
        let median = Measure::new(name("commit → ack, p50"), "ms", self.median_ms);
        let late = Measure::new(name("commit → ack, p99"), "ms", self.late_ms);
        let commit = Measure::new(name("commit with ÷ without relay"), "", self.commit_ratio);
        let (median, late) = if rate > JUDGED {
            (median, late)
        } else {
            (median.goal(goals::LATENCY_MEDIAN_MS), late.goal(goals::LATENCY_LATE_MS))
        };
        vec![
            median,
            late,
            Measure::new(name("commit → ack, p99.9"), "ms", self.latest_ms),
            if rate == JUDGED { commit.goal(goals::COMMIT_RATIO) } else { commit },
            Measure::new(name("transaction with ÷ without"), "", self.transaction_ratio),
            Measure::new(name("commit without relay"), "µs", self.commit_us),
            Measure::new(name("relay CPU"), "% of a core", self.relay_percent),
            Measure::new(name("written"), "events/s", self.reached),
        ]
    }
}

impl Relayed {
    /// Events per second between the first and the last commit.
    fn rate(&self) -> f64 {
        let times = self.committed.iter().map(|event| event.at);
        let ends = times.clone().min().zip(times.max());
        let seconds = ends.map_or(f64::NAN, |(first, last)| (last - first).as_secs_f64());
        float(self.committed.len() as u64) / seconds
    }

    /// Times from COMMIT's return to the acknowledgement, in ms, in rising order. The time is 0
    /// when the acknowledgement came before COMMIT returned.
    fn latencies(&self) -> Vec<f64> {
        let wait = |event: &Committed| {
            let acked = self.acked.get(&event.id)?;
            Some(acked.saturating_duration_since(event.at).as_secs_f64() * 1e3)
        };
        // An event without a seen acknowledgement counts as infinitely late.
        let waits = self.committed.iter().map(|event| wait(event).unwrap_or(f64::INFINITY));
        sorted(waits.collect())
    }
}
