//! What to measure, and how much of it.

use std::time::Duration;

use clap::{Parser, ValueEnum};

/// Measures the relay beside its targets
#[derive(Debug, Parser)]
#[expect(clippy::struct_excessive_bools, reason = "each is a flag of the command line")]
pub(crate) struct Options {
    /// One JSON object instead of the table
    #[arg(long)]
    pub(crate) json: bool,
    /// Small sizes: for changes to the benchmark itself, not for numbers
    #[arg(long)]
    quick: bool,
    /// Measure this part only (may be repeated)
    #[arg(long, value_name = "PART")]
    only: Vec<Part>,
    /// How often each measure is taken
    #[arg(long, default_value_t = 3)]
    pub(crate) rounds: u32,
    /// Cargo says this to every benchmark
    #[arg(long, hide = true)]
    bench: bool,
}

/// A part of the benchmark.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Part {
    /// A backlog against the ceiling
    Drain,
    /// From commit to ack, and what the writers notice
    Latency,
    /// What the outbox costs saturating writers
    Writers,
    /// An outbox without events
    Idle,
    /// kill -9 in the middle of a backlog
    Resume,
}

impl Part {
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Drain => "drain",
            Self::Latency => "latency",
            Self::Writers => "writers",
            Self::Idle => "idle",
            Self::Resume => "resume",
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

    /// Events of the backlog that is drained.
    pub(crate) fn drain_events(&self) -> u64 {
        if self.quick { 100_000 } else { 500_000 }
    }

    /// Events of the backlog in which the relay is killed.
    pub(crate) fn resume_events(&self) -> u64 {
        if self.quick { 200_000 } else { 1_000_000 }
    }

    /// How long one load of writers lasts.
    pub(crate) fn load_time(&self) -> Duration {
        Duration::from_secs(if self.quick { 3 } else { 10 })
    }

    /// How long the idle relay is watched.
    pub(crate) fn idle_time(&self) -> Duration {
        Duration::from_secs(if self.quick { 10 } else { 20 })
    }
}
