//! `postrider why`: what the events of one key wait for, and what to do about it.

use serde_json::{Value, json};

use super::{
    Globals, block_on, dlq,
    exit::{Exit, Failure},
    print::number,
    print_each,
    standing::{self, Standing},
};
use crate::{
    config::{Config, load::Scope},
    event::AggregateKey,
    findings::{self, Finding},
    logging::printable,
    outbox::{Inspection, SESSION_SETTINGS, Waiting, WaitingLetter},
    pg::{connect::connect, schema::Schema},
};

/// From this age on a row that a running relay says nothing about is none that it is about to take.
const SOON_SECONDS: f64 = 10.0;

/// `postrider why`
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// The key, such as order/o-1: the type ends at the first slash
    #[arg(value_name = "TYPE/ID", value_parser = dlq::key)]
    key: AggregateKey,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

/// What is known of one key.
struct Report {
    key: AggregateKey,
    waiting: Waiting,
    standing: Standing,
    /// What keeps everything from being published.
    obstacle: Option<Finding>,
}

/// Prints what a key waits for.
pub(super) fn run(globals: Globals, args: &Args) -> Result<Exit, Failure> {
    let loaded = globals.load(Scope::Database)?;
    let ask_each = async {
        let mut reports = Vec::new();
        for config in loaded.configs() {
            reports.push(ask(&config, &args.key).await?);
        }
        Ok(reports)
    };
    let reports = block_on(ask_each)?;
    let json = |index: usize| reports.get(index).map(Report::json).unwrap_or_default();
    let text = |index: usize| {
        let lines = reports.get(index).map(Report::lines).unwrap_or_default();
        lines.iter().map(|line| printable(line)).collect::<Vec<_>>().join("\n")
    };
    print_each(&loaded, (args.json, json, text))?;
    Ok(Exit::Done)
}

async fn ask(config: &Config, key: &AggregateKey) -> Result<Report, Failure> {
    let connection = connect(&config.database, "why", &SESSION_SETTINGS).await?;
    let inspection = Inspection::new(connection, Schema::from(&config.database.schema));
    let relay = config.relay.name.as_str();
    let waiting = inspection.waiting(relay, key).await?;
    let standing = Standing::ask(&inspection, relay).await?;
    let obstacle = findings::of(&standing.facts()).into_iter().find(findings::is_obstacle);
    let obstacle = match obstacle {
        Some(obstacle) => Some(obstacle),
        None => standing::broken(&inspection, relay).await?.into_iter().next(),
    };
    Ok(Report { key: key.clone(), waiting, standing, obstacle })
}

impl Report {
    /// Why nothing is published at all.
    fn blocked(&self) -> Option<String> {
        if !self.standing.is_run() {
            return Some("no relay runs".to_owned());
        }
        let Finding { code, cause, .. } = self.obstacle.as_ref()?;
        Some(format!("{}: {cause}", code.as_str()))
    }

    /// The letter that keeps the others of the key waiting.
    fn head(&self) -> Option<&WaitingLetter> {
        self.waiting.letter.as_ref().filter(|head| head.letter.holds)
    }

    fn next(&self) -> Option<String> {
        match &self.waiting.letter {
            Some(head) if head.letter.state == "dead" && head.is_hopeless => {
                // Another try would only end as the first did.
                Some(format!("postrider dlq edit {}", head.letter.id))
            }
            Some(head) if head.letter.state == "dead" => {
                Some(format!("postrider dlq redrive {}", head.letter.id))
            }
            None if self.waiting.pending == 0 => None,
            _ if !self.standing.is_run() => Some("postrider run".to_owned()),
            _ => match &self.obstacle {
                Some(obstacle) => Some(obstacle.next.clone()),
                None if self.waiting.letter.is_none() && !self.is_soon() => {
                    Some("postrider status".to_owned())
                }
                None => None,
            },
        }
    }

    /// What to change before the letter in front is tried again.
    fn remedy(&self) -> Option<&'static str> {
        let head = self.waiting.letter.as_ref().filter(|head| !head.is_hopeless)?;
        // Whoever redrove it may have changed that already.
        if head.letter.state != "dead" && head.letter.attempts == 0 {
            return None;
        }
        findings::remedy(&head.letter.error_code)
    }

    /// Whether what is pending has hardly waited yet.
    fn is_soon(&self) -> bool {
        self.waiting.oldest_age_seconds.is_none_or(|age| age < SOON_SECONDS)
    }

    fn json(&self) -> Value {
        let letter = self.waiting.letter.as_ref().map(|head| {
            let mut letter = dlq::as_json(&head.letter);
            letter.insert("last_failed_at".to_owned(), json!(head.last_failed_at));
            letter
                .insert("next_attempt_in_seconds".to_owned(), json!(head.next_attempt_in_seconds));
            letter.insert("behind".to_owned(), json!(head.behind));
            letter
        });
        json!({
            "relay": self.standing.relay,
            "aggregate_type": self.key.aggregate_type(),
            "aggregate_id": self.key.aggregate_id(),
            "waits": self.head().is_some() || self.waiting.pending > 0,
            "letter": letter,
            "pending": self.waiting.pending,
            "oldest_age_seconds": self.waiting.oldest_age_seconds,
            "pending_is_exact": !self.waiting.is_more,
            "blocked": self.blocked(),
            "first": self.remedy(),
            "next": self.next(),
        })
    }

    fn lines(&self) -> Vec<String> {
        let mut lines = Vec::new();
        if let Some(head) = &self.waiting.letter {
            lines.extend(about(&self.key, head));
        }
        let Waiting { pending, oldest_age_seconds, is_more, .. } = self.waiting;
        if pending > 0 {
            let age = oldest_age_seconds.unwrap_or_default().max(0.0);
            let at_least = if is_more { "at least " } else { "" };
            let count = events(pending);
            lines.push(format!(
                "{at_least}{count} of {} not settled in the outbox, the oldest {age:.1} s",
                self.key
            ));
        } else if is_more {
            lines.push("the backlog is too long to find all rows of one key in it".to_owned());
        }
        if lines.is_empty() {
            return vec![format!("nothing of {} waits", self.key)];
        }
        match self.blocked() {
            Some(text) => lines.push(format!("just now nothing is published: {text}")),
            None if self.waiting.letter.is_some() => {}
            None if self.is_soon() => {
                lines.push("a relay runs: it is about to be published".to_owned());
            }
            None => lines.push("a relay runs and has noted nothing that blocks it".to_owned()),
        }
        if let Some(remedy) = self.remedy() {
            lines.push(format!("first: {remedy}"));
        }
        if let Some(next) = self.next() {
            lines.push(format!("next: {next}"));
        }
        if let Some(head) = self.waiting.letter.as_ref().filter(|it| it.letter.state == "dead") {
            let id = head.letter.id;
            let edit = if head.is_hopeless { String::new() } else { format!(" edit {id},") };
            lines.push(format!("   or: postrider dlq show {id},{edit} discard {id}"));
        }
        lines
    }
}

/// What there is to say of a letter.
fn about(key: &AggregateKey, head: &WaitingLetter) -> Vec<String> {
    let letter = &head.letter;
    let (behind, id) = (events(head.behind), letter.id);
    let waits = match (letter.holds, head.behind) {
        (true, 0) => format!("{key} waits for letter {id}; nothing stands behind it yet"),
        (true, 1) => format!("{key} waits for letter {id}; 1 event waits behind it"),
        (true, _) => format!("{key} waits for letter {id}; {behind} wait behind it"),
        (false, _) => {
            format!("{key} goes on; letter {id} was passed over (route.on_dead = \"skip\")")
        }
    };
    let since = &letter.first_failed_at;
    let state = match (letter.state.as_str(), head.next_attempt_in_seconds) {
        ("dead", _) => format!("dead since {}", letter.dead_at.as_ref().unwrap_or(since)),
        ("retrying", Some(seconds)) if seconds > 0.0 => format!("tried again in {seconds:.0} s"),
        ("retrying", _) => "due to be tried again".to_owned(),
        (state, _) => format!("{state} since {since}"),
    };
    let last = &head.last_failed_at;
    let tried = match letter.attempts {
        0 => "not tried since its redrive".to_owned(),
        1 => format!("tried once, at {last}"),
        attempts => format!("tried {attempts} times, last at {last}"),
    };
    vec![
        waits,
        format!("letter {id} is {state}, {tried}"),
        format!("{}: {}", letter.error_code, letter.error),
    ]
}

fn events(count: i64) -> String {
    let text = number(count.unsigned_abs());
    if count == 1 { format!("{text} event") } else { format!("{text} events") }
}
