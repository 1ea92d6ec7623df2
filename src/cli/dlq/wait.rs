//! `dlq redrive --wait`: waits for the outcome of each redriven letter, and prints it.

use std::time::Duration;

use super::{Exit, Failure, dead_letters, print};
use crate::{
    config::error::Problem,
    operate::letters::{FOLLOWED_MAX, Redriven},
};

/// The longest `--timeout`.
const TIMEOUT_MAX: Duration = Duration::from_hours(24);

/// Options that say whether a redrive waits for the outcomes of its letters, and how long.
#[derive(Debug, clap::Args)]
pub(super) struct WaitOptions {
    /// Wait for the outcome of each letter, and print it. Exits with 0 when all are published, 65
    /// when some are dead again, 75 when some are still to be tried
    #[arg(long, conflicts_with = "dry_run")]
    wait: bool,
    /// How long to wait at most, such as 30s
    #[arg(long, value_name = "TIME", requires = "wait", default_value = "1m", value_parser = timeout)]
    timeout: Duration,
}

fn timeout(text: &str) -> Result<Duration, String> {
    let time = humantime::parse_duration(text).map_err(|error| error.to_string())?;
    if time > TIMEOUT_MAX { Err("it is longer than 24h".to_owned()) } else { Ok(time) }
}

impl WaitOptions {
    /// Longest wait for the outcomes; `None` without `--wait`.
    pub(super) fn wanted(&self) -> Option<Duration> {
        self.wait.then_some(self.timeout)
    }
}

/// Refuses to wait for more letters than one command follows.
pub(super) fn check(count: u64) -> Result<(), Failure> {
    if usize::try_from(count).is_ok_and(|count| count <= FOLLOWED_MAX) {
        return Ok(());
    }
    let text = format!("--wait follows at most {FOLLOWED_MAX} letters, and this is about {count}");
    let hint = "narrow it with a filter, or leave --wait out: postrider status shows what is left";
    Err(Failure::new(Exit::Usage, Problem::new(text).hint(hint)))
}

/// The exit code of a wait, by the outcomes of letters that were printed so far.
pub(super) struct Printed(Exit);

impl Printed {
    pub(super) fn none() -> Self {
        Self(Exit::Done)
    }

    /// Prints the outcome of one letter.
    pub(super) fn outcome(&mut self, id: i64, outcome: &Redriven) -> Result<(), Failure> {
        self.0 = worse(self.0, verdict(outcome));
        Ok(print::line(&format!("letter {id}: {}", text(outcome)))?)
    }

    /// Prints the letters that have no outcome at the end of the wait.
    pub(super) fn end(self, waiting: &[i64], limit: Duration) -> Result<Exit, Failure> {
        if waiting.is_empty() {
            return Ok(self.0);
        }
        for id in waiting {
            print::line(&format!("letter {id}: no outcome yet"))?;
        }
        print::to_stderr(&format!(
            "no outcome of {} within {}: does a relay run? see `postrider status`",
            dead_letters(waiting.len() as u64).replace("dead ", ""),
            humantime::format_duration(limit)
        ));
        Ok(worse(self.0, Exit::StillTried))
    }
}

fn verdict(outcome: &Redriven) -> Exit {
    match outcome {
        Redriven::Published { .. } => Exit::Done,
        Redriven::DeadAgain { .. } | Redriven::Behind(_) => Exit::DeadAgain,
        Redriven::Retrying { .. } | Redriven::Pending => Exit::StillTried,
        Redriven::Gone { .. } => Exit::Failed,
    }
}

/// The graver of two exit codes. Letters that are dead again need a person. Letters that the relay
/// still tries need only time.
pub(super) fn worse(one: Exit, other: Exit) -> Exit {
    let rank = |exit: Exit| match exit {
        Exit::DeadAgain => 3,
        Exit::StillTried => 2,
        Exit::Failed => 1,
        Exit::Done
        | Exit::Usage
        | Exit::Unavailable
        | Exit::Software
        | Exit::NoPermission
        | Exit::Configuration
        | Exit::Checked(_) => 0,
    };
    if rank(other) > rank(one) { other } else { one }
}

fn text(outcome: &Redriven) -> String {
    match outcome {
        Redriven::Pending => "no outcome yet".to_owned(),
        Redriven::Published { stream_seq: Some(seq) } => {
            format!("published, stream sequence {seq}")
        }
        Redriven::Published { stream_seq: None } => "published".to_owned(),
        Redriven::DeadAgain { code, error } => format!("dead again, {code}: {error}"),
        Redriven::Retrying { code, error, next } => {
            let next = next.as_ref().map(|next| format!(", next attempt {next}"));
            format!("retrying, {code}: {error}{}", next.unwrap_or_default())
        }
        Redriven::Behind(letter) => format!("held behind dead letter {letter} of its key"),
        Redriven::Gone { how } => how.clone(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_needs_a_person_decides_the_exit_code_before_what_needs_time() {
        let all = [Exit::Done, Exit::Failed, Exit::StillTried, Exit::DeadAgain];
        for (at, one) in all.iter().enumerate() {
            for (other_at, other) in all.iter().enumerate() {
                assert_eq!(worse(*one, *other), all[at.max(other_at)], "{one:?} {other:?}");
            }
        }
    }

    #[test]
    fn more_letters_than_a_command_follows_are_refused_before_anything_is_changed() {
        assert!(check(FOLLOWED_MAX as u64).is_ok());
        assert_eq!(check(FOLLOWED_MAX as u64 + 1).unwrap_err().exit, Exit::Usage);
    }
}
