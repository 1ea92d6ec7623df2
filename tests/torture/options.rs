//! What is run: from the environment, or from `cargo test`'s own arguments.

use std::{
    env,
    time::{SystemTime, UNIX_EPOCH},
};

use super::fault::Fault;

/// How thorough a run is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Tier {
    /// With every change.
    Pr,
    /// While nobody waits.
    Nightly,
}

impl Tier {
    /// As `TIER` says it.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Pr => "pr",
            Self::Nightly => "nightly",
        }
    }
}

/// What is run.
#[derive(Debug, Clone)]
pub(crate) struct Options {
    pub(crate) tier: Tier,
    pub(crate) seed: u64,
    /// Faults side by side.
    pub(crate) jobs: usize,
    /// Strikes of each fault, instead of the tier's.
    pub(crate) strikes: Option<u32>,
    /// Strikes that are checked together, instead of the fault's.
    pub(crate) set: Option<u32>,
    /// Only these faults.
    wanted: Vec<String>,
}

/// Reads `TIER`, `SEED`, `JOBS`, `FAULT`, `ITERATIONS` and `SET`, and names of faults as arguments.
pub(crate) fn read() -> Result<Options, String> {
    let variable = |name: &str| env::var(name).ok().filter(|value| !value.is_empty());
    let number = |name: &str| match variable(name) {
        None => Ok(None),
        Some(text) => text.parse::<u64>().map(Some).map_err(|_| format!("{name}={text}: a number")),
    };
    let tier = match variable("TIER").as_deref() {
        None | Some("pr") => Tier::Pr,
        Some("nightly") => Tier::Nightly,
        Some(other) => return Err(format!("TIER={other}: pr or nightly")),
    };
    let named = variable("FAULT").unwrap_or_default();
    let mut wanted: Vec<String> = named.split([',', ' ']).map(str::to_owned).collect();
    // `cargo test NAME` gives NAME to every target: it then means a test elsewhere.
    wanted.extend(env::args().skip(1).filter(|argument| !argument.starts_with('-')));
    wanted.retain(|name| !name.is_empty());
    let narrow = |number: Option<u64>| number.map(|n| u32::try_from(n).unwrap_or(u32::MAX));
    Ok(Options {
        tier,
        seed: number("SEED")?.unwrap_or_else(by_the_clock),
        jobs: number("JOBS")?.and_then(|jobs| usize::try_from(jobs).ok()).unwrap_or(4).max(1),
        strikes: narrow(number("ITERATIONS")?),
        set: narrow(number("SET")?),
        wanted,
    })
}

impl Options {
    /// The faults that are asked for; all when none is.
    pub(crate) fn chosen(&self, faults: Vec<Fault>) -> Vec<Fault> {
        let asked = |fault: &Fault| self.wanted.iter().any(|id| id.eq_ignore_ascii_case(fault.id));
        faults.into_iter().filter(|fault| self.wanted.is_empty() || asked(fault)).collect()
    }

    /// How many strikes a fault gets.
    pub(crate) fn strikes(&self, fault: &Fault) -> u32 {
        self.strikes.unwrap_or(match self.tier {
            Tier::Pr => fault.pr,
            Tier::Nightly => fault.nightly,
        })
    }
}

/// A seed that nobody has to think of; it is printed.
fn by_the_clock() -> u64 {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    now.as_secs() % 1_000_000
}
