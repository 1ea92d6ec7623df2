//! Command line of the benchmark: the parts to measure, and the sizes of each.

use std::time::Duration;

use clap::{Parser, ValueEnum};

use crate::brokers::Kind;

/// Measures the relay against its goals
#[derive(Debug, Parser)]
#[expect(clippy::struct_excessive_bools, reason = "each is a flag of the command line")]
pub(crate) struct Options {
    /// Print one JSON object instead of the tables
    #[arg(long)]
    pub(crate) json: bool,
    /// Use small sizes and one round, to see whether everything works; the figures mean nothing
    #[arg(long)]
    pub(crate) quick: bool,
    /// Measure this part only (may be repeated)
    #[arg(long, value_name = "PART")]
    only: Vec<Part>,
    /// Number of rounds in which each measure is taken [default: 3, or 1 with --quick]
    #[arg(long, value_parser = clap::value_parser!(u32).range(1..))]
    rounds: Option<u32>,
    /// Accepted and ignored: Cargo passes it to every benchmark
    #[arg(long, hide = true)]
    bench: bool,
}

/// A part of the benchmark.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Part {
    /// Drain a backlog, against the ceilings of publishing and reading
    Drain,
    /// Measure the relay's memory while a large backlog is drained
    Large,
    /// Drain a backlog in which all events belong to one key
    Hot,
    /// Drain a backlog of which a route takes one event in a hundred
    Filtered,
    /// Drain an aged database (settled rows, huge backlog, many keys, open transaction), against a
    /// fresh one
    Aged,
    /// Drain other payload sizes, numbers of keys and sizes of backlogs
    Matrix,
    /// Measure the time from commit to acknowledgement, and what the relay costs writers
    Latency,
    /// Measure what the outbox costs saturating writers, without a relay
    Writers,
    /// Measure saturating writers beside a relay that publishes
    Shared,
    /// Measure unrelated traffic beside a relay that sleeps
    Neighbours,
    /// Measure what `emit()` costs more than a plain INSERT
    Emit,
    /// Measure an idle relay: its queries and its processor time
    Idle,
    /// Kill the relay with kill -9 in the middle of a backlog, and measure how soon it publishes
    /// again
    Resume,
    /// Drain into a cluster that keeps three copies of each message
    Replicated,
    /// Drain into a broker that syncs to disk before it acknowledges
    Fsyncing,
}

impl Part {
    pub(crate) fn name(self) -> String {
        self.to_possible_value().map(|value| value.get_name().to_owned()).unwrap_or_default()
    }

    /// Kind of broker that the part needs.
    pub(crate) fn brokers(self) -> Kind {
        match self {
            Self::Replicated => Kind::Cluster,
            Self::Fsyncing => Kind::Fsyncing,
            Self::Drain
            | Self::Large
            | Self::Hot
            | Self::Filtered
            | Self::Aged
            | Self::Matrix
            | Self::Latency
            | Self::Writers
            | Self::Shared
            | Self::Neighbours
            | Self::Emit
            | Self::Idle
            | Self::Resume => Kind::Plain,
        }
    }
}

impl Options {
    pub(crate) fn read() -> Self {
        Self::parse()
    }

    /// Parts to measure, in the order of the table.
    pub(crate) fn parts(&self) -> Vec<Part> {
        let wanted = |part: &&Part| self.only.is_empty() || self.only.contains(part);
        Part::value_variants().iter().filter(wanted).copied().collect()
    }

    /// Number of rounds in which each measure is taken.
    pub(crate) fn rounds(&self) -> u32 {
        self.rounds.unwrap_or(if self.quick { 1 } else { 3 })
    }

    /// Chooses between the size of a full run and that of a quick run.
    pub(crate) fn scaled(&self, full: u64, quick: u64) -> u64 {
        if self.quick { quick } else { full }
    }

    /// Number of events in the usual backlog.
    pub(crate) fn drain_events(&self) -> u64 {
        self.scaled(500_000, 50_000)
    }

    /// Number of events in the large backlog. Their payloads together exceed the relay's memory
    /// many times.
    pub(crate) fn large_events(&self) -> u64 {
        self.scaled(1_000_000, 100_000)
    }

    /// Number of events in the backlog of one key.
    pub(crate) fn hot_events(&self) -> u64 {
        self.scaled(500_000, 100_000)
    }

    /// Number of events that are drained into a broker that syncs each message.
    pub(crate) fn fsyncing_events(&self) -> u64 {
        self.scaled(500_000, 60_000)
    }

    /// Number of settled rows in the aged outbox, which lie behind the relay's position.
    pub(crate) fn settled_events(&self) -> u64 {
        self.scaled(10_000_000, 200_000)
    }

    /// Number of waiting events in the aged outbox, enough for all rounds.
    pub(crate) fn waiting_events(&self) -> u64 {
        let rounds = u64::from(self.rounds()) + 1;
        self.scaled(5_000_000, 100_000).max(self.aged_events() * rounds)
    }

    /// Number of events that one round drains, from the aged outbox and from a fresh one.
    pub(crate) fn aged_events(&self) -> u64 {
        self.scaled(500_000, 50_000)
    }

    /// Number of events in the backlog during which the relay is killed.
    pub(crate) fn resume_events(&self) -> u64 {
        self.scaled(1_000_000, 150_000)
    }

    /// Duration of one load of writers.
    pub(crate) fn load_time(&self) -> Duration {
        Duration::from_secs(self.scaled(10, 2))
    }

    /// Duration of one turn of a variant. Variants alternate in short turns, because the machine's
    /// speed drifts over longer times.
    pub(crate) fn turn(&self) -> Duration {
        Duration::from_secs(self.scaled(2, 1))
    }

    /// Number of turns that each variant gets in one round.
    pub(crate) fn turns(&self) -> u32 {
        if self.quick { 2 } else { 5 }
    }

    /// Time for which the idle relay is observed.
    pub(crate) fn idle_time(&self) -> Duration {
        Duration::from_secs(self.scaled(20, 10))
    }
}
