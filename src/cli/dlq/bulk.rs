//! What redrive and discard share: which letters, the question before, the batches, the report.

use std::{
    io::{self, BufRead as _, IsTerminal as _},
    time::{Duration, SystemTime},
};

use super::{
    Exit, Failure, Filters, Globals, block_on, dead_letters, of_letter, open, open_with,
    print::{self, number},
    table, wait,
};
use crate::{
    config::{Config, error::Problem},
    outbox::operator::{
        Action, Authority, Choice, OPERATOR_SETTINGS_FOR_IDS, Operator, Outcome, State,
    },
    pg::error::QueryError,
    shutdown::Shutdown,
};

/// How many letters a rehearsal shows.
const SHOWN: i64 = 5;

/// How many batches pass between two lines of progress where no terminal can replace the last one.
const BATCHES_A_LINE: u64 = 10;

/// Which letters, and how carefully.
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

/// What to do, to which letters, and who wants it.
pub(super) struct Job<'a> {
    pub(super) action: Action,
    /// Letters in this state.
    pub(super) state: State,
    /// Also such as can never be published as they are.
    pub(super) hopeless: bool,
    pub(super) which: &'a Which,
    /// How long to wait for the letters' outcomes; `None` not to wait.
    pub(super) wait: Option<Duration>,
    pub(super) authority: Authority,
}

impl Which {
    fn check(&self, verb: &str) -> Result<(), Failure> {
        let ways = [!self.ids.is_empty(), self.all, !self.filters.is_empty()];
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
            let hint = "say --yes, or look first with --dry-run";
            return Err(Failure::new(Exit::Usage, Problem::new(text).hint(hint)));
        }
        Ok(())
    }
}

/// Does it, and says what was done.
pub(super) fn run(globals: Globals, job: &Job<'_>) -> Result<Exit, Failure> {
    job.which.check(job.verb())?;
    let loaded = globals.load_for_letters()?;
    block_on(async {
        if let Some(first) = job.which.ids.first() {
            return job.by_id(of_letter(&loaded, *first).await?).await;
        }
        let mut exits = Vec::new();
        for config in loaded.configs() {
            if loaded.routes.len() > 1 {
                print::line(&format!("route {}", config.relay.name))?;
            }
            exits.push(job.in_bulk(&config).await?);
        }
        let worst = exits.into_iter().find(|exit| *exit != Exit::Done);
        Ok(worst.unwrap_or(Exit::Done))
    })
}

impl Job<'_> {
    fn verb(&self) -> &'static str {
        match self.action {
            Action::Redrive => "redrive",
            Action::Discard => "discard",
        }
    }

    fn done(&self) -> &'static str {
        match self.action {
            Action::Redrive => "redriven",
            Action::Discard => "discarded",
        }
    }

    async fn by_id(&self, config: &Config) -> Result<Exit, Failure> {
        let operator = open_with(config, &OPERATOR_SETTINGS_FOR_IDS).await?;
        let mut ids = self.which.ids.clone();
        let mut seen = std::collections::HashSet::new();
        ids.retain(|id| seen.insert(*id));
        if self.wait.is_some() {
            wait::check(ids.len() as u64)?;
        }
        let since = operator.now().await?;
        let before = operator.outcomes(&ids).await?;
        let mut changed = Vec::new();
        if self.which.dry_run {
            let would = before.iter().filter(|(_, outcome)| self.may_change(outcome));
            changed.extend(would.map(|(id, _)| *id));
        } else {
            let retrying = before.iter().filter(|(_, outcome)| {
                self.action == Action::Redrive && *outcome == Outcome::Retrying
            });
            let retrying: Vec<i64> = retrying.map(|(id, _)| *id).collect();
            for (state, ids) in [(State::Dead, ids), (State::Retrying, retrying)] {
                let choice = Choice { ids: Some(ids), state, ..self.choice() };
                let mut above = Some(0).filter(|_| choice.ids != Some(Vec::new()));
                while let Some(seq) = above {
                    let acted = operator.act(self.action, &choice, seq, &self.authority).await?;
                    changed.extend(acted.ids);
                    above = acted.next;
                }
            }
        }
        let count = dead_letters(changed.len() as u64);
        if self.which.dry_run {
            print::line(&format!("would {} {count}", self.verb()))?;
        } else {
            print::line(&format!("{} {count}", self.done()))?;
        }
        let mut exit = Exit::Done;
        for (id, outcome) in before.iter().filter(|(id, _)| !changed.contains(id)) {
            exit = Exit::Failed;
            print::to_stderr(&format!("letter {id}: {}", why_not(outcome)));
        }
        Ok(wait::worse(exit, self.followed(&operator, &changed, since).await?))
    }

    /// Waits for the outcomes, when that is wanted.
    async fn followed(
        &self,
        operator: &Operator,
        changed: &[i64],
        since: SystemTime,
    ) -> Result<Exit, Failure> {
        match self.wait {
            Some(limit) => wait::follow(operator, changed, (since, limit)).await,
            None => Ok(Exit::Done),
        }
    }

    fn choice(&self) -> Choice {
        Choice { state: self.state, hopeless: self.hopeless, ..Choice::default() }
    }

    fn may_change(&self, outcome: &Outcome) -> bool {
        match outcome {
            Outcome::Dead => true,
            Outcome::Hopeless { code } => self.hopeless && code != "unreadable_row",
            Outcome::Retrying => self.action == Action::Redrive,
            Outcome::Held | Outcome::Resolved { .. } | Outcome::OfRelay(_) | Outcome::Unknown => {
                false
            }
        }
    }

    async fn in_bulk(&self, config: &Config) -> Result<Exit, Failure> {
        let operator = open(config).await?;
        let mut choice = self.which.filters.choice(&operator).await?;
        // What dies from now on was not asked about, and a letter that dies again is left alone.
        if self.state == State::Dead {
            choice.until = Some(operator.now().await?);
        }
        (choice.state, choice.hopeless) = (self.state, self.hopeless);
        let count = operator.count(&choice).await?;
        if !self.hopeless {
            let all = operator.count(&Choice { hopeless: true, ..choice.clone() }).await?;
            say_hopeless(all.saturating_sub(count));
        }
        if count == 0 {
            let all = self.which.filters.is_empty();
            let state = self.state.as_str();
            print::line(&format!("no {state} letters{}", if all { "" } else { " like that" }))?;
            return Ok(Exit::Done);
        }
        if self.which.dry_run {
            let first = operator.chosen(&choice, SHOWN).await?;
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
        let since = operator.now().await?;
        let shutdown = Shutdown::new();
        let obeying = shutdown.obey_signals()?;
        tokio::select! {
            exit = self.batches(&operator, (&choice, count, since), &shutdown) => exit,
            // The second signal: the batch under way is done as a whole or not at all.
            () = obeying => Ok(Exit::Failed),
        }
    }

    /// Asks the person at the terminal.
    fn confirmed(&self, count: u64) -> io::Result<bool> {
        let question = format!("{} {}?", self.verb(), dead_letters(count));
        let how = match self.action {
            Action::Redrive => "[y/N]".to_owned(),
            Action::Discard => format!("type \"discard {count}\":"),
        };
        print::prompt(&format!("{question} {how} "));
        let mut answer = String::new();
        io::stdin().lock().read_line(&mut answer)?;
        Ok(self.is_consent(&answer, count))
    }

    fn is_consent(&self, answer: &str, count: u64) -> bool {
        match self.action {
            Action::Redrive => matches!(answer.trim(), "y" | "Y" | "yes"),
            Action::Discard => answer.trim() == format!("discard {count}"),
        }
    }

    async fn batches(
        &self,
        operator: &Operator,
        (choice, count, since): (&Choice, u64, SystemTime),
        shutdown: &Shutdown,
    ) -> Result<Exit, Failure> {
        let is_terminal = io::stderr().is_terminal();
        let (mut above, mut changed, mut batches) = (Some(0), 0_u64, 0_u64);
        let mut followed = Vec::new();
        while let Some(seq) = above {
            if shutdown.is_stopping() {
                print::to_stderr(&format!("stopped: {}", self.rest(changed, count)));
                return Ok(Exit::Failed);
            }
            let acted = operator
                .act(self.action, choice, seq, &self.authority)
                .await
                .map_err(|error| self.broken_off(error, (changed, count)))?;
            changed += acted.ids.len() as u64;
            if self.wait.is_some() {
                followed.extend(acted.ids);
            }
            above = acted.next;
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
        tokio::select! {
            exit = self.followed(operator, &followed, since) => exit,
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

    fn broken_off(&self, error: QueryError, (changed, count): (u64, u64)) -> Failure {
        let mut failure = Failure::from(error);
        if let Some(problem) = failure.problems.first_mut() {
            problem.detail = Some(self.rest(changed, count));
        }
        failure
    }
}

/// Says how many letters are left alone because they would only die again.
fn say_hopeless(count: u64) {
    if count > 0 {
        print::to_stderr(&format!(
            "{} left alone: they can never be published as they are; edit or discard them, or say \
             --force",
            dead_letters(count)
        ));
    }
}

/// Why a letter was left alone.
fn why_not(outcome: &Outcome) -> String {
    match outcome {
        Outcome::Hopeless { code } if code == "unreadable_row" => {
            "its row still cannot be read: repair the table, or edit it with a payload, or discard it"
                .to_owned()
        }
        Outcome::Hopeless { code } => format!(
            "it can never be published as it is ({code}): edit or discard it, or say --force"
        ),
        Outcome::Dead => "taken by somebody else meanwhile".to_owned(),
        Outcome::Retrying => "already being retried".to_owned(),
        Outcome::Held => "not dead: it waits behind an earlier letter of its key".to_owned(),
        Outcome::Resolved { resolution, by: None } => format!("already {resolution}"),
        Outcome::Resolved { resolution, by: Some(by) } => format!("already {resolution} by {by}"),
        Outcome::OfRelay(relay) => {
            format!("belongs to relay {relay}: say --route {relay}")
        }
        Outcome::Unknown => "there is none".to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

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
        let authority = Authority { actor: "ann".to_owned(), reason: None };
        let job = |action| Job {
            action,
            state: State::Dead,
            hopeless: false,
            which: &which,
            wait: None,
            authority: authority.clone(),
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
