//! `postrider why`: what the events of one key wait for, and what to do about it.

use super::{
    Globals, ask_each, block_on, dlq,
    exit::{Exit, Failure},
    print::number,
    print_routes,
};
use crate::{
    config::load::Scope,
    event::AggregateKey,
    logging::printable,
    operate::why::{self, KeyStatus, WaitingLetter},
};

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

/// Prints what a key waits for.
pub(super) fn run(globals: Globals, args: &Args) -> Result<Exit, Failure> {
    let loaded = globals.load(Scope::Database)?;
    let answers = block_on(ask_each(&loaded, async |config| why::why(config, &args.key).await))?;
    let text = |status: &KeyStatus| {
        let lines = lines(status);
        lines.iter().map(|line| printable(line)).collect::<Vec<_>>().join("\n")
    };
    print_routes(&loaded, (args.json, &answers, text))?;
    Ok(Exit::Done)
}

fn lines(status: &KeyStatus) -> Vec<String> {
    let mut lines = Vec::new();
    if let Some(head) = &status.letter {
        lines.extend(about(&status.key, head));
    }
    if status.pending > 0 {
        let age = status.oldest_age_seconds.unwrap_or_default().max(0.0);
        let at_least = if status.pending_is_exact { "" } else { "at least " };
        let count = events(status.pending);
        lines.push(format!(
            "{at_least}{count} of {} not settled in the outbox, the oldest {age:.1} s",
            status.key
        ));
    } else if !status.pending_is_exact {
        lines.push("the backlog is too long to find all rows of one key in it".to_owned());
    }
    if lines.is_empty() {
        return vec![format!("nothing of {} waits", status.key)];
    }
    match &status.blocked {
        Some(text) => lines.push(format!("just now nothing is published: {text}")),
        None if status.letter.is_some() => {}
        None if status.is_soon => {
            lines.push("a relay runs: it is about to be published".to_owned());
        }
        None => lines.push("a relay runs and has reported nothing that blocks it".to_owned()),
    }
    if let Some(remedy) = status.first {
        lines.push(format!("first: {remedy}"));
    }
    if let Some(next) = &status.next {
        lines.push(format!("next: {next}"));
    }
    if let Some(head) = status.letter.as_ref().filter(|it| it.letter.state == "dead") {
        let id = head.letter.id;
        let edit = if head.is_hopeless { String::new() } else { format!(" edit {id},") };
        lines.push(format!("   or: postrider dlq show {id},{edit} discard {id}"));
    }
    lines
}

/// Lines of text about the letter that a key waits for: its state, its attempts and its error.
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
