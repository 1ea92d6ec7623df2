//! `postrider dlq list`: letters page by page.

use super::{
    Exit, Failure, Filters, Globals, Letter, ask_each, block_on, print, print_routes, printable,
    table,
};
use crate::{
    config::Config,
    operate::letters::{self, LetterPage, LetterState, ListError, StrandedLetters},
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

impl From<Of> for LetterState {
    fn from(of: Of) -> Self {
        match of {
            Of::Dead => Self::Dead,
            Of::Held => Self::Held,
            Of::Retrying => Self::Retrying,
        }
    }
}

/// Prints one page of letters.
pub(super) fn run(globals: Globals, args: &Args) -> Result<Exit, Failure> {
    let loaded = globals.load_for_letters()?;
    let (state, filter) = (LetterState::from(args.state), args.filters.filter());
    let (pages, stranded) = block_on(async {
        let pages = ask_each(&loaded, async |config: &Config| {
            letters::list(config, (state, &filter), args.after, args.limit).await
        });
        // Stranded letters belong to relays that the configuration no longer has, so the pages of
        // the configured routes lack them. For programs, which read `--json`, `relay list` has
        // them.
        let stranded = async {
            if args.json { Ok(Vec::new()) } else { letters::stranded(&loaded.config).await }
        };
        Ok((pages.await?, stranded.await?))
    })?;
    let is_plain = state == LetterState::Dead && filter.is_empty();
    let same = if is_plain { "postrider dlq list" } else { "the same command with" };
    print_routes(&loaded, (args.json, &pages, |page: &LetterPage| text(page, state, same)))?;
    for StrandedLetters { relay, cause, .. } in stranded {
        let text = format!("{cause}; to see them: postrider dlq list --route {relay}");
        print::line(&printable(&text))?;
    }
    Ok(Exit::Done)
}

/// A page of letters as a table. When another page follows, the last line is the command that
/// prints it: the text `same` and an `--after`.
fn text(page: &LetterPage, state: LetterState, same: &str) -> String {
    if page.letters.is_empty() {
        return format!("no {} letters", state.as_str());
    }
    let time: (&str, fn(&Letter) -> Option<&str>) = match state {
        LetterState::Dead => ("died", |letter| letter.dead_at.as_deref()),
        LetterState::Held => ("held since", |letter| Some(&letter.first_failed_at)),
        LetterState::Retrying => ("next attempt", |letter| letter.next_attempt_at.as_deref()),
    };
    let table = table(&page.letters, time);
    let Some(next) = page.next else { return table };
    format!("{table}\nmore: {same} --after {next}")
}

impl From<ListError> for Failure {
    fn from(error: ListError) -> Self {
        let exit = match &error {
            ListError::Database(error) => error.into(),
            ListError::NothingBefore { .. } => Exit::Failed,
        };
        Self::said(exit, &error, error.hint())
    }
}
