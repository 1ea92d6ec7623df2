//! `postrider dlq`: the events that left the fast path, and what an operator does with them.

mod bulk;
mod discard;
mod edit;
mod erase;
mod list;
mod redrive;
mod show;
mod wait;

use std::process;

use super::{
    Globals, ask_each, block_on,
    exit::{Exit, Failure},
    print, print_routes,
};
use crate::{
    event::AggregateKey,
    logging::printable,
    operate::letters::{Letter, LetterFilter, Since},
};

/// `postrider dlq …`
#[derive(Debug, clap::Subcommand)]
pub(super) enum Command {
    /// List letters, the newest first
    List(list::Args),
    /// Show everything about one letter
    Show(show::Args),
    /// Have dead letters tried again
    Redrive(redrive::Args),
    /// Give dead letters up for good; what waits behind them goes on
    Discard(discard::Args),
    /// Change a dead letter, which gets a new event id
    Edit(edit::Args),
    /// Erase for the law's sake what is kept of one key
    Erase(erase::Args),
}

/// Runs one of the commands about letters.
pub(super) fn run(globals: Globals, command: &Command) -> Result<Exit, Failure> {
    let done = match command {
        Command::List(args) => list::run(globals, args),
        Command::Show(args) => show::run(globals, args),
        Command::Redrive(args) => redrive::run(globals, args),
        Command::Discard(args) => discard::run(globals, args),
        Command::Edit(args) => edit::run(globals, args),
        Command::Erase(args) => erase::run(globals, args),
    };
    done.map_err(Failure::of_operator)
}

/// Filter of letters.
#[derive(Debug, clap::Args)]
#[command(next_help_heading = "Filters")]
struct Filters {
    /// Of this event type
    #[arg(long = "type", value_name = "TYPE")]
    event_type: Option<String>,
    /// Of this key, such as order/o-1
    #[arg(long, value_name = "TYPE/ID", value_parser = key)]
    key: Option<AggregateKey>,
    /// With this reason, such as `invalid_subject`
    #[arg(long, value_name = "CODE")]
    code: Option<String>,
    /// With this fingerprint, which groups like failures
    #[arg(long, value_name = "TEXT")]
    fingerprint: Option<String>,
    /// Dead for at most this long, such as 2h, or since a time such as 2026-11-21T03:00:00Z
    #[arg(long, value_name = "TIME")]
    since: Option<Since>,
}

impl Filters {
    fn filter(&self) -> LetterFilter {
        LetterFilter {
            event_type: self.event_type.clone(),
            key: self.key.clone(),
            error_code: self.code.clone(),
            fingerprint: self.fingerprint.clone(),
            since: self.since.clone(),
        }
    }
}

/// A key as people write it. The type ends at the first slash, the id may have more.
pub(super) fn key(text: &str) -> Result<AggregateKey, String> {
    match text.split_once('/') {
        Some((kind, id)) if !kind.is_empty() && !id.is_empty() => Ok(AggregateKey::new(kind, id)),
        _ => Err("write the aggregate's type and id with a slash between: order/o-1".to_owned()),
    }
}

/// Reason of an act, for the audit.
pub(super) fn reason(text: &str) -> Result<String, String> {
    const CHARS_MAX: usize = 1_000;
    let text = text.trim();
    match text.chars().count() {
        1..=CHARS_MAX => Ok(text.to_owned()),
        count => Err(format!("it has {count} characters; write 1 to {CHARS_MAX}")),
    }
}

/// The acting person: the value of `--actor`, else the user of the system. The database adds its
/// own user.
pub(super) fn actor(given: Option<&str>) -> String {
    if let Some(name) = given {
        return name.to_owned();
    }
    let asked = process::Command::new("id").arg("-un").output().ok();
    let asked = asked.filter(|output| output.status.success());
    let user = asked.and_then(|output| String::from_utf8(output.stdout).ok());
    let user = user.map(|name| name.trim().to_owned()).filter(|name| !name.is_empty());
    let variable = |name| std::env::var(name).ok().filter(|value| !value.is_empty());
    let user = user.or_else(|| variable("USER")).unwrap_or_else(|| "unknown".to_owned());
    match variable("SUDO_USER") {
        Some(person) if person != user => format!("{person} as {user}"),
        _ => user,
    }
}

/// A name for the audit.
pub(super) fn name(text: &str) -> Result<String, String> {
    const CHARS_MAX: usize = 200;
    match text.trim() {
        "" => Err("it is empty".to_owned()),
        text if text.chars().count() > CHARS_MAX => Err(format!("at most {CHARS_MAX} characters")),
        text => Ok(text.to_owned()),
    }
}

/// The letters in columns. The error is last, because its length is not bounded.
fn table(letters: &[Letter], time: (&str, fn(&Letter) -> Option<&str>)) -> String {
    let header = ["id", time.0, "reason", "event type", "key", "event id", "error"];
    let mut rows = vec![header.map(str::to_owned)];
    rows.extend(letters.iter().map(|letter| {
        // Later events can wait behind a letter only if it has a key, so `(held)` follows a key
        // only.
        let key = letter.key.as_ref().map(AggregateKey::as_str);
        let key = match key {
            Some(key) if letter.holds => format!("{key} (held)"),
            key => key.unwrap_or("no key").to_owned(),
        };
        [
            letter.id.to_string(),
            time.1(letter).map_or_else(|| "-".to_owned(), moment),
            letter.error_code.clone(),
            shortened(&letter.event_type),
            shortened(&key),
            letter.event_id.to_string(),
            printable(&letter.error).into_owned(),
        ]
    }));
    print::columns(&rows)
}

/// A time as a person reads it, without microseconds: those serve only to sort letters.
fn moment(iso: &str) -> String {
    iso.split('.').next().unwrap_or_default().replace('T', " ")
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

/// A number of letters as text, such as `1 dead letter` or `2 dead letters`.
fn dead_letters(count: u64) -> String {
    format!("{} dead letter{}", print::number(count), if count == 1 { "" } else { "s" })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_is_split_at_its_first_slash() {
        let key = key("order/2026/17").unwrap();
        assert_eq!((key.aggregate_type(), key.aggregate_id()), ("order", "2026/17"));
        for text in ["", "order", "/17", "order/"] {
            assert!(super::key(text).is_err(), "{text}");
        }
    }

    #[test]
    fn a_reason_has_1_to_1000_characters() {
        assert_eq!(reason(" a typing error "), Ok("a typing error".to_owned()));
        assert!(reason(&"ä".repeat(1_000)).is_ok());
        for text in ["", "  ", &"ä".repeat(1_001)] {
            assert!(reason(text).is_err(), "{text}");
        }
    }
}
