//! `postrider dlq list`: letters page by page.

use serde_json::{Map, Value, json};

use super::{
    Exit, Failure, Filters, Globals, Letter, block_on, inspect, open, print, print_each, printable,
    table,
};
use crate::{
    config::{Config, error::Problem},
    event::AggregateKey,
    findings,
    outbox::operator::State,
};

/// `postrider dlq list`
#[derive(Debug, clap::Args)]
pub(in crate::cli) struct Args {
    /// Print JSON
    #[arg(long)]
    json: bool,
    /// How many to print at most, up to 10000
    #[arg(long, value_name = "N", default_value_t = 50, value_parser = clap::value_parser!(u16).range(1..=10_000))]
    limit: u16,
    /// Go on after the letter with this id, the last of the page before
    #[arg(long, value_name = "ID")]
    after: Option<i64>,
    /// Which ones: dead, held behind another of their key, or to be tried again
    #[arg(long, value_name = "STATE", value_enum, default_value_t = Of::Dead)]
    state: Of,
    #[command(flatten)]
    filters: Filters,
}

#[derive(Debug, Clone, Copy, clap::ValueEnum)]
enum Of {
    Dead,
    Held,
    Retrying,
}

impl From<Of> for State {
    fn from(of: Of) -> Self {
        match of {
            Of::Dead => Self::Dead,
            Of::Held => Self::Held,
            Of::Retrying => Self::Retrying,
        }
    }
}

/// One page, and whether there are more.
struct Page {
    letters: Vec<Letter>,
    next: Option<i64>,
}

/// Prints one page of letters.
pub(super) fn run(globals: Globals, args: &Args) -> Result<Exit, Failure> {
    let loaded = globals.load_for_letters()?;
    let ask_each = async {
        let mut pages = Vec::new();
        for config in loaded.configs() {
            pages.push(ask(&config, args).await?);
        }
        Ok((pages, elsewhere(&loaded.config, args).await?))
    };
    let (pages, elsewhere) = block_on(ask_each)?;
    let json = |index: usize| pages.get(index).map(Page::json).unwrap_or_default();
    let text = |index: usize| pages.get(index).map(|page| page.text(args)).unwrap_or_default();
    print_each(&loaded, (args.json, json, text))?;
    for text in elsewhere {
        print::line(&text)?;
    }
    Ok(Exit::Done)
}

/// Letters of relays that nobody runs, as after the name was changed, for people: the list of this
/// relay has none of them.
async fn elsewhere(config: &Config, args: &Args) -> Result<Vec<String>, Failure> {
    if args.json {
        return Ok(Vec::new());
    }
    let relays = inspect(config).await?.relays().await?;
    let stranded = relays.iter().filter(|row| row.has_stranded_letters(&config.relay.siblings));
    let text = stranded.map(|row| {
        let cause = findings::stranded(&row.relay, row.letters).cause;
        let relay = &row.relay;
        let text = format!("{cause}; to see them: postrider dlq list --route {relay}");
        printable(&text).into_owned()
    });
    Ok(text.collect())
}

impl Page {
    fn json(&self) -> Value {
        let letters: Vec<Value> = self.letters.iter().map(as_json).map(Value::Object).collect();
        json!({ "letters": letters, "next": self.next })
    }

    fn text(&self, args: &Args) -> String {
        let state = State::from(args.state);
        if self.letters.is_empty() {
            return format!("no {} letters", state.as_str());
        }
        let time: (&str, fn(&Letter) -> Option<&str>) = match state {
            State::Dead => ("died", |letter| letter.dead_at.as_deref()),
            State::Held => ("held since", |letter| Some(&letter.first_failed_at)),
            State::Retrying => ("next attempt", |letter| letter.next_attempt_at.as_deref()),
        };
        let table = table(&self.letters, time);
        if let Some(next) = self.next {
            let same = if matches!(state, State::Dead) && args.filters.is_empty() {
                "postrider dlq list"
            } else {
                "the same command with"
            };
            return format!("{table}\nmore: {same} --after {next}");
        }
        table
    }
}

async fn ask(config: &Config, args: &Args) -> Result<Page, Failure> {
    let operator = open(config).await?;
    let choice = args.filters.choice(&operator).await?;
    let limit = usize::from(args.limit);
    let state = State::from(args.state);
    // One more than asked for tells whether there are more.
    let found = operator.letters((state, &choice), args.after, i64::from(args.limit) + 1).await?;
    let Some(mut letters) = found else {
        let after = args.after.unwrap_or(0);
        let text = match state {
            State::Dead => format!("no dead letter has the id {after}"),
            State::Held | State::Retrying => format!("no letter has the id {after}"),
        };
        let problem = Problem::new(text).hint("begin without --after");
        return Err(Failure::new(Exit::Failed, problem));
    };
    let has_more = letters.len() > limit;
    letters.truncate(limit);
    let next = letters.last().filter(|_| has_more).map(|letter| letter.id);
    Ok(Page { letters, next })
}

/// A letter for a program.
pub(in crate::cli) fn as_json(letter: &Letter) -> Map<String, Value> {
    let fields = [
        ("id", json!(letter.id)),
        ("relay", json!(letter.relay)),
        ("state", json!(letter.state)),
        ("dead_at", json!(letter.dead_at)),
        ("first_failed_at", json!(letter.first_failed_at)),
        ("next_attempt_at", json!(letter.next_attempt_at)),
        ("error_code", json!(letter.error_code)),
        ("error", json!(letter.error)),
        ("fingerprint", json!(letter.fingerprint)),
        ("attempts", json!(letter.attempts)),
        ("holds", json!(letter.holds)),
        ("seq", json!(letter.seq)),
        ("event_id", json!(letter.event_id)),
        ("event_type", json!(letter.event_type)),
        ("aggregate_type", json!(letter.key.as_ref().map(AggregateKey::aggregate_type))),
        ("aggregate_id", json!(letter.key.as_ref().map(AggregateKey::aggregate_id))),
        ("payload_bytes", json!(letter.payload_bytes)),
    ];
    fields.into_iter().map(|(name, value)| (name.to_owned(), value)).collect()
}
