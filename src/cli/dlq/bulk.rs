//! Parts that `dlq redrive` and `dlq discard` share: the choice of letters, the confirmation, the
//! batches, the report.

use std::{
    io::{self, BufRead as _, IsTerminal as _},
    time::{Duration, SystemTime},
};

use super::{
    Exit, Failure, Filters, Globals, block_on, dead_letters,
    print::{self, number},
    table,
    wait::{self, Printed},
};
use crate::{
    config::{Config, error::Problem},
    operate::{
        DatabaseError,
        letters::{self, Action, ChosenLetters, LeftAlone, LetterAct, NamedLetters},
    },
    shutdown::Shutdown,
};

/// Number of letters that `--dry-run` shows.
const SHOWN: i64 = 5;

/// Number of batches between two lines of progress when standard error is not a terminal. A
/// terminal shows each batch, in one line that is replaced.
const BATCHES_A_LINE: u64 = 10;

/// Arguments that choose letters, and say whether to ask for a confirmation or only to print what
/// would change.
#[derive(Debug, clap::Args)]
#[expect(clippy::struct_excessive_bools, reason = "each is a flag of the command line")]
pub(super) struct Which {
    /// The letters with these ids
    #[arg(value_name = "ID")]
    ids: Vec<i64>,
    /// Every dead letter
    #[arg(long)]
    all: bool,
    /// Say what would be done, and do nothing
    #[arg(long)]
    dry_run: bool,
    /// Do not ask
    #[arg(long)]
    yes: bool,
    #[command(flatten)]
    filters: Filters,
}

/// An act of an operator, which is a redrive or a discard, with the choice of its letters.
pub(super) struct Job<'a> {
    pub(super) act: LetterAct,
    pub(super) which: &'a Which,
    /// Longest wait for the outcomes of the letters; `None` for no wait.
    pub(super) wait: Option<Duration>,
}

impl Which {
    fn check(&self, verb: &str) -> Result<(), Failure> {
        let ways = [!self.ids.is_empty(), self.all, !self.filters.filter().is_empty()];
        let (text, hint) = match ways.iter().filter(|way| **way).count() {
            1 => ("", ""),
            0 => ("no letters are named", "give their ids, a filter such as --code, or --all"),
            _ => ("ids, filters and --all exclude each other", "give one of them"),
        };
        if !text.is_empty() {
            let hint = format!("{hint}; see `postrider dlq {verb} --help`");
            return Err(Failure::new(Exit::Usage, Problem::new(text).hint(hint)));
        }
        if self.ids.is_empty() && !self.yes && !self.dry_run && !io::stdin().is_terminal() {
            let text = format!("there is no terminal to ask whether to {verb} so many letters");
            let hint = "say --yes, or see first with --dry-run what would change";
            return Err(Failure::new(Exit::Usage, Problem::new(text).hint(hint)));
        }
        Ok(())
    }
}

/// Performs the act, and prints what was done.
pub(super) fn run(globals: Globals, job: &Job<'_>) -> Result<Exit, Failure> {
    job.which.check(job.verb())?;
    let loaded = globals.load_for_letters()?;
    block_on(async {
        if let Some(first) = job.which.ids.first() {
            return job.by_id(letters::route_of(&loaded, *first).await?).await;
        }
        let mut exits = Vec::new();
        let shutdown = Shutdown::new();
        for config in loaded.configs() {
            if shutdown.is_stopping() {
                break;
            }
            if loaded.routes.len() > 1 {
                print::line(&format!("route {}", config.relay.name))?;
            }
            exits.push(job.in_bulk(&config, &shutdown).await?);
        }
        Ok(Exit::gravest(exits.into_iter()).unwrap_or(Exit::Done))
    })
}

impl Job<'_> {
    fn verb(&self) -> &'static str {
        match self.act.action {
            Action::Redrive => "redrive",
            Action::Discard => "discard",
        }
    }

    fn done(&self) -> &'static str {
        match self.act.action {
            Action::Redrive => "redriven",
            Action::Discard => "discarded",
        }
    }

    async fn by_id(&self, config: &Config) -> Result<Exit, Failure> {
        let named = NamedLetters::open(config, &self.act, &self.which.ids).await?;
        if self.wait.is_some() {
            wait::check(named.count())?;
        }
        let acted = if self.which.dry_run { named.rehearse().await? } else { named.act().await? };
        let count = dead_letters(acted.changed.len() as u64);
        if self.which.dry_run {
            print::line(&format!("would {} {count}", self.verb()))?;
        } else {
            print::line(&format!("{} {count}", self.done()))?;
        }
        let mut exit = Exit::Done;
        for LeftAlone { id, why } in &acted.left_alone {
            exit = Exit::Failed;
            print::to_stderr(&format!("letter {id}: {why}"));
        }
        let Some(limit) = self.wait else { return Ok(exit) };
        let mut printed = Printed::none();
        let waiting =
            named.follow(&acted, limit, |id, outcome| printed.outcome(id, outcome)).await?;
        Ok(wait::worse(exit, printed.end(&waiting, limit)?))
    }

    async fn in_bulk(&self, config: &Config, shutdown: &Shutdown) -> Result<Exit, Failure> {
        let filter = self.which.filters.filter();
        let mut chosen = ChosenLetters::open(config, &self.act, &filter).await?;
        let count = chosen.count();
        say_hopeless(chosen.hopeless());
        if count == 0 {
            let state = self.act.state.as_str();
            let like = if filter.is_empty() { "" } else { " like that" };
            print::line(&format!("no {state} letters{like}"))?;
            return Ok(Exit::Done);
        }
        if self.which.dry_run {
            let first = chosen.first(SHOWN).await?;
            print::line(&format!("would {} {}, the first:", self.verb(), dead_letters(count)))?;
            print::line(&table(&first, ("died", |letter| letter.dead_at.as_deref())))?;
            return Ok(Exit::Done);
        }
        if !self.which.yes && !self.confirmed(count)? {
            print::line("nothing was changed")?;
            return Ok(Exit::Failed);
        }
        if self.wait.is_some() {
            wait::check(count)?;
        }
        let since = chosen.now().await?;
        let obeying = shutdown.obey_signals()?;
        tokio::select! {
            exit = self.batches(&mut chosen, since, shutdown) => exit,
            // A second signal ends the program at once. The current batch is applied as a whole or
            // not at all.
            () = obeying => Ok(Exit::Failed),
        }
    }

    /// Asks at the terminal whether to act on this number of letters.
    fn confirmed(&self, count: u64) -> io::Result<bool> {
        let question = format!("{} {}?", self.verb(), dead_letters(count));
        let how = match self.act.action {
            Action::Redrive => "[y/N]".to_owned(),
            Action::Discard => format!("type \"discard {count}\":"),
        };
        print::prompt(&format!("{question} {how} "));
        let mut answer = String::new();
        io::stdin().lock().read_line(&mut answer)?;
        Ok(self.is_consent(&answer, count))
    }

    fn is_consent(&self, answer: &str, count: u64) -> bool {
        match self.act.action {
            Action::Redrive => matches!(answer.trim(), "y" | "Y" | "yes"),
            Action::Discard => answer.trim() == format!("discard {count}"),
        }
    }

    async fn batches(
        &self,
        chosen: &mut ChosenLetters<'_>,
        since: SystemTime,
        shutdown: &Shutdown,
    ) -> Result<Exit, Failure> {
        let (is_terminal, count) = (io::stderr().is_terminal(), chosen.count());
        let (mut changed, mut batches) = (0_u64, 0_u64);
        let mut followed = Vec::new();
        while chosen.has_more() {
            if shutdown.is_stopping() {
                print::to_stderr(&format!("stopped: {}", self.rest(changed, count)));
                return Ok(Exit::Failed);
            }
            let ids = chosen
                .change_batch()
                .await
                .map_err(|error| self.broken_off(error, (changed, count)))?;
            changed += ids.len() as u64;
            if self.wait.is_some() {
                followed.extend(ids);
            }
            batches += 1;
            let text = format!("{} {} of {}", self.done(), number(changed), number(count));
            if is_terminal {
                print::progress(&text);
            } else if batches.is_multiple_of(BATCHES_A_LINE) {
                print::to_stderr(&text);
            }
        }
        if is_terminal {
            print::progress("");
        }
        print::line(&format!("{} {}", self.done(), dead_letters(changed)))?;
        if changed < count {
            let others = number(count - changed);
            print::to_stderr(&format!("{others} were taken by somebody else meanwhile"));
        }
        let Some(limit) = self.wait else { return Ok(Exit::Done) };
        let mut printed = Printed::none();
        let following =
            chosen.follow(&followed, (since, limit), |id, outcome| printed.outcome(id, outcome));
        tokio::select! {
            waiting = following => printed.end(&waiting?, limit),
            () = shutdown.stopping() => {
                print::to_stderr("stopped waiting: the letters stay redriven");
                Ok(Exit::StillTried)
            }
        }
    }

    fn rest(&self, changed: u64, count: u64) -> String {
        format!(
            "{} {} of {}; run the same again for the rest",
            self.done(),
            number(changed),
            number(count)
        )
    }

    fn broken_off(&self, error: DatabaseError, (changed, count): (u64, u64)) -> Failure {
        let mut failure = Failure::from(error);
        if let Some(problem) = failure.problems.first_mut() {
            problem.detail = Some(self.rest(changed, count));
        }
        failure
    }
}

/// Prints how many letters a redrive leaves alone, because they can never be published without an
/// edit.
fn say_hopeless(count: u64) {
    if count > 0 {
        print::to_stderr(&format!(
            "{} left alone: they can never be published as they are; edit or discard them, or say \
             --force",
            dead_letters(count)
        ));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::operate::letters::{Attribution, LetterState};

    #[test]
    fn a_discard_wants_its_number_typed_and_a_redrive_a_plain_yes() {
        let which = Which {
            ids: Vec::new(),
            all: true,
            dry_run: false,
            yes: false,
            filters: Filters {
                event_type: None,
                key: None,
                code: None,
                fingerprint: None,
                since: None,
            },
        };
        let attribution = Attribution { actor: "ann".to_owned(), reason: None };
        let job = |action| Job {
            act: LetterAct {
                action,
                state: LetterState::Dead,
                hopeless: false,
                attribution: attribution.clone(),
            },
            which: &which,
            wait: None,
        };
        let (redrive, discard) = (job(Action::Redrive), job(Action::Discard));
        for (answer, redrives, discards) in [
            ("y\n", true, false),
            ("yes\n", true, false),
            ("\n", false, false),
            ("", false, false),
            ("no\n", false, false),
            ("discard 12\n", false, true),
            ("discard 13\n", false, false),
            ("discard\n", false, false),
        ] {
            assert_eq!(redrive.is_consent(answer, 12), redrives, "{answer:?}");
            assert_eq!(discard.is_consent(answer, 12), discards, "{answer:?}");
        }
    }
}
