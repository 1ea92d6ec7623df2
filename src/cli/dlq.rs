//! `postrider dlq`: the events that were set aside because they could not be published.

use serde_json::{Value, json};

use super::{
    Globals, block_on,
    exit::{Exit, Failure},
    print,
};
use crate::{
    config::{Config, error::Problem, load::Scope},
    logging::printable,
    outbox::{DeadLetter, Inspection, SESSION_SETTINGS},
    pg::{connect::connect, schema::Schema},
};

/// `postrider dlq …`
#[derive(Debug, clap::Subcommand)]
pub(super) enum Command {
    /// List dead letters, the newest first
    List(Args),
}

/// `postrider dlq list`
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// Print JSON
    #[arg(long)]
    json: bool,
    /// How many to print at most, up to 10000
    #[arg(long, value_name = "N", default_value_t = 50, value_parser = clap::value_parser!(u16).range(1..=10_000))]
    limit: u16,
    /// Go on after the letter with this id, the last of the page before
    #[arg(long, value_name = "ID")]
    after: Option<i64>,
}

/// One page, and whether there are more.
struct Page {
    letters: Vec<DeadLetter>,
    next: Option<i64>,
}

/// Prints one page of dead letters.
pub(super) fn list(globals: Globals, args: &Args) -> Result<Exit, Failure> {
    let loaded = globals.load(Scope::Database)?;
    let page = block_on(ask(&loaded.config, args))?;
    if args.json {
        let letters: Vec<Value> = page.letters.iter().map(as_json).collect();
        print::json(&json!({ "dead_letters": letters, "next": page.next }))?;
    } else if page.letters.is_empty() {
        print::line("no dead letters")?;
    } else {
        print::line(&table(&page.letters))?;
        if let Some(next) = page.next {
            print::line(&format!("more: postrider dlq list --after {next}"))?;
        }
    }
    Ok(Exit::Done)
}

async fn ask(config: &Config, args: &Args) -> Result<Page, Failure> {
    let connection = connect(&config.database, "dlq", &SESSION_SETTINGS).await?;
    let inspection = Inspection::new(connection, Schema::from(&config.database.schema));
    let limit = usize::from(args.limit);
    // One more than asked for tells whether there are more.
    let found = inspection
        .dead_letters(config.relay.name.as_str(), args.after, i64::from(args.limit) + 1)
        .await?;
    let Some(mut letters) = found else {
        let problem =
            Problem::new(format!("no dead letter has the id {}", args.after.unwrap_or(0)))
                .hint("begin without --after");
        return Err(Failure::new(Exit::Failed, problem));
    };
    let has_more = letters.len() > limit;
    letters.truncate(limit);
    let next = letters.last().filter(|_| has_more).map(|letter| letter.id);
    Ok(Page { letters, next })
}

fn as_json(letter: &DeadLetter) -> Value {
    let (aggregate_type, aggregate_id) = letter.aggregate.clone().unzip();
    json!({
        "id": letter.id,
        "relay": letter.relay,
        "dead_at": letter.dead_at,
        "error_code": letter.error_code,
        "error": letter.error,
        "attempts": letter.attempts,
        "holds": letter.holds,
        "seq": letter.seq,
        "event_id": letter.event_id,
        "event_type": letter.event_type,
        "aggregate_type": aggregate_type,
        "aggregate_id": aggregate_id,
        "payload_bytes": letter.payload_bytes,
    })
}

/// The letters in columns; the reason stands last, because it is as long as it is.
fn table(letters: &[DeadLetter]) -> String {
    let header = ["id", "died", "reason", "event type", "key", "event id", "error"];
    let mut rows = vec![header.map(str::to_owned)];
    rows.extend(letters.iter().map(|letter| {
        // The microseconds order letters, they tell a person nothing.
        let died = letter.dead_at.split('.').next().unwrap_or_default().replace('T', " ");
        let key = letter.aggregate.as_ref();
        let key = key.map_or_else(|| "-".to_owned(), |(kind, id)| format!("{kind}/{id}"));
        let key = if letter.holds { format!("{key} (held)") } else { key };
        [
            letter.id.to_string(),
            died,
            letter.error_code.clone(),
            shortened(&letter.event_type),
            shortened(&key),
            letter.event_id.to_string(),
            printable(&letter.error).into_owned(),
        ]
    }));
    print::columns(&rows)
}

/// A text of a row, without control characters and no wider than a column should be.
fn shortened(text: &str) -> String {
    const CHARS_MAX: usize = 40;
    let text = printable(text);
    match text.char_indices().nth(CHARS_MAX) {
        None => text.into_owned(),
        Some((end, _)) => format!("{}…", text.get(..end).unwrap_or_default()),
    }
}
