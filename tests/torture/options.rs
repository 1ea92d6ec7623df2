//! Options of a run of the torture suite, from environment variables and arguments.

use std::{
    env,
    time::{SystemTime, UNIX_EPOCH},
};

use super::fault::Fault;

/// Thoroughness of a run: the number of strikes per fault.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Tier {
    /// Run for each pull request.
    Pr,
    /// Run at night, with more strikes.
    Nightly,
}

impl Tier {
    /// Value of the variable `TIER` for this tier.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Pr => "pr",
            Self::Nightly => "nightly",
        }
    }
}

/// Options of a run.
#[derive(Debug, Clone)]
pub(crate) struct Options {
    pub(crate) tier: Tier,
    pub(crate) seed: u64,
    /// Number of faults that run side by side.
    pub(crate) jobs: usize,
    /// Number of strikes per fault. `None` means the number of the tier.
    pub(crate) strikes: Option<u32>,
    /// Number of strikes that are checked together. `None` means the number of the fault.
    pub(crate) set: Option<u32>,
    /// Names of the faults to run. All are run when the list is empty.
    wanted: Vec<String>,
}

/// Reads the variables `TIER`, `SEED`, `JOBS`, `FAULT`, `ITERATIONS` and `SET`, and names of faults
/// from the arguments.
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
    // `cargo test NAME` passes NAME to every test target. A name that is no fault means a test of
    // another target.
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
    /// Faults that the options name, or all when they name none.
    pub(crate) fn chosen(&self, faults: Vec<Fault>) -> Vec<Fault> {
        let asked = |fault: &Fault| self.wanted.iter().any(|id| id.eq_ignore_ascii_case(fault.id));
        faults.into_iter().filter(|fault| self.wanted.is_empty() || asked(fault)).collect()
    }

    /// Number of strikes of a fault.
    pub(crate) fn strikes(&self, fault: &Fault) -> u32 {
        self.strikes.unwrap_or(match self.tier {
            Tier::Pr => fault.pr,
            Tier::Nightly => fault.nightly,
        })
    }
}

/// Seed from the clock, for a run without `SEED`. It is printed, so that the run can be repeated.
fn by_the_clock() -> u64 {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    now.as_secs() % 1_000_000
}
