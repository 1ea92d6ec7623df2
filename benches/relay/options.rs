//! What to measure, and how much of it.

use std::time::Duration;

use clap::{Parser, ValueEnum};

use crate::brokers::Kind;

/// Measures the relay beside its targets
#[derive(Debug, Parser)]
#[expect(clippy::struct_excessive_bools, reason = "each is a flag of the command line")]
pub(crate) struct Options {
    /// One JSON object instead of the table
    #[arg(long)]
    pub(crate) json: bool,
    /// Small sizes and one round: whether everything works, not for numbers
    #[arg(long)]
    pub(crate) quick: bool,
    /// Measure this part only (may be repeated)
    #[arg(long, value_name = "PART")]
    only: Vec<Part>,
    /// How often each measure is taken [default: 3, or 1 with --quick]
    #[arg(long, value_parser = clap::value_parser!(u32).range(1..))]
    rounds: Option<u32>,
    /// Cargo says this to every benchmark
    #[arg(long, hide = true)]
    bench: bool,
}

/// A part of the benchmark.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Part {
    /// A backlog against the ceilings of publishing and reading
    Drain,
    /// The memory that a large backlog takes
    Large,
    /// All events of one key
    Hot,
    /// A backlog of which a route takes one event in a hundred
    Filtered,
    /// Settled rows, a huge backlog, many keys and an open transaction, against none of that
    Aged,
    /// The other dimensions of a drain
    Matrix,
    /// From commit to ack, and what the writers notice
    Latency,
    /// What the outbox costs saturating writers
    Writers,
    /// Saturating writers beside a relay that works
    Shared,
    /// Unrelated traffic beside a relay that sleeps
    Neighbours,
    /// What emit costs more than a plain INSERT
    Emit,
    /// An outbox without events
    Idle,
    /// kill -9 in the middle of a backlog
    Resume,
    /// A broker that keeps three copies
    Replicated,
    /// A broker that syncs before it acknowledges
    Fsyncing,
}

impl Part {
    pub(crate) fn name(self) -> String {
        self.to_possible_value().map(|value| value.get_name().to_owned()).unwrap_or_default()
    }

    /// The broker that it needs.
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

    /// The parts to measure, in the table's order.
    pub(crate) fn parts(&self) -> Vec<Part> {
        let wanted = |part: &&Part| self.only.is_empty() || self.only.contains(part);
        Part::value_variants().iter().filter(wanted).copied().collect()
    }

    /// How often each measure is taken.
    pub(crate) fn rounds(&self) -> u32 {
        self.rounds.unwrap_or(if self.quick { 1 } else { 3 })
    }

    /// One size or the other.
    pub(crate) fn scaled(&self, full: u64, quick: u64) -> u64 {
        if self.quick { quick } else { full }
    }

    /// Events of the backlog that is drained.
    pub(crate) fn drain_events(&self) -> u64 {
        self.scaled(500_000, 50_000)
    }

    /// Events of a backlog that memory could not hold.
    pub(crate) fn large_events(&self) -> u64 {
        self.scaled(1_000_000, 100_000)
    }

    /// Events of one key.
    pub(crate) fn hot_events(&self) -> u64 {
        self.scaled(500_000, 100_000)
    }

    /// Events into a broker that syncs.
    pub(crate) fn fsyncing_events(&self) -> u64 {
        self.scaled(500_000, 60_000)
    }

    /// Rows behind the position in an outbox that has lived.
    pub(crate) fn settled_events(&self) -> u64 {
        self.scaled(10_000_000, 200_000)
    }

    /// Events that wait in it: enough for all rounds.
    pub(crate) fn waiting_events(&self) -> u64 {
        let rounds = u64::from(self.rounds()) + 1;
        self.scaled(5_000_000, 100_000).max(self.aged_events() * rounds)
    }

    /// How many of them are drained in one round, and as many from a fresh outbox.
    pub(crate) fn aged_events(&self) -> u64 {
        self.scaled(500_000, 50_000)
    }

    /// Events of the backlog in which the relay is killed.
    pub(crate) fn resume_events(&self) -> u64 {
        self.scaled(1_000_000, 150_000)
    }

    /// How long one load of writers lasts.
    pub(crate) fn load_time(&self) -> Duration {
        Duration::from_secs(self.scaled(10, 2))
    }

    /// How long one of several that are compared has its turn: shorter than the machine's moods last.
    pub(crate) fn turn(&self) -> Duration {
        Duration::from_secs(self.scaled(2, 1))
    }

    /// How many turns each of them has in a round.
    pub(crate) fn turns(&self) -> u32 {
        if self.quick { 2 } else { 5 }
    }

    /// How long the idle relay is watched.
    pub(crate) fn idle_time(&self) -> Duration {
        Duration::from_secs(self.scaled(20, 10))
    }
}
