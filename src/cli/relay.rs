//! `postrider relay`: lists the relays of an outbox, and gives up a relay that nobody runs.

use std::io::{self, BufRead as _, IsTerminal as _};

use super::{
    Globals, block_on, dlq,
    exit::{Exit, Failure},
    print,
};
use crate::{
    config::{Config, error::Problem, load::Scope},
    logging::printable,
    operate::relays::{self, ForgetError, ForgottenRelay, LetterDisposal, ListedRelay},
};

/// `postrider relay …`
#[derive(Debug, clap::Subcommand)]
pub(super) enum Command {
    /// List the relays that have a position, and who of them keeps rows in the outbox
    List(List),
    /// Give up the position of a relay that nobody runs; a relay of that name begins anew
    Forget(Forget),
}

/// `postrider relay list`
#[derive(Debug, clap::Args)]
pub(super) struct List {
    /// Print JSON
    #[arg(long)]
    json: bool,
}

/// `postrider relay forget`
#[derive(Debug, clap::Args)]
#[expect(clippy::struct_excessive_bools, reason = "each is a flag of the command line")]
pub(super) struct Forget {
    /// The relay's name, as `relay list` prints it
    #[arg(value_name = "NAME", value_parser = dlq::name)]
    name: String,
    /// Why, for the audit
    #[arg(long, value_name = "TEXT", value_parser = dlq::reason)]
    reason: Option<String>,
    /// Your name, for the audit [default: the user of the system]
    #[arg(long, value_name = "NAME", value_parser = dlq::name)]
    actor: Option<String>,
    /// Discard its unresolved letters too
    #[arg(long)]
    discard_letters: bool,
    /// Do not ask
    #[arg(long)]
    yes: bool,
}

/// Runs one of the commands about relays.
pub(super) fn run(globals: Globals, command: &Command) -> Result<Exit, Failure> {
    let loaded = globals.load(Scope::Database)?;
    match command {
        Command::List(args) => list(&loaded.config, args),
        Command::Forget(args) => forget(&loaded.config, args).map_err(Failure::of_operator),
    }
}

fn list(config: &Config, args: &List) -> Result<Exit, Failure> {
    let list = block_on(async { Ok(relays::list(config).await?) })?;
    if args.json {
        print::json(&list)?;
        return Ok(Exit::Done);
    }
    let header = ["relay", "state", "last wrote", "behind at most", "letters", "stream"];
    let mut rows = vec![header.map(str::to_owned)];
    rows.extend(list.relays.iter().map(|it| {
        let ListedRelay { relay, state, idle_seconds, behind_at_most, letters, stream, .. } = it;
        [
            printable(relay).into_owned(),
            state.as_str().to_owned(),
            super::status::ago(*idle_seconds),
            print::number(behind_at_most.unsigned_abs()),
            print::number(letters.unsigned_abs()),
            stream.as_deref().map_or_else(|| "-".to_owned(), |it| printable(it).into_owned()),
        ]
    }));
    print::line(&print::columns(&rows))?;
    Ok(Exit::Done)
}

fn forget(config: &Config, args: &Forget) -> Result<Exit, Failure> {
    let name = &args.name;
    if !args.yes && !is_confirmed(name)? {
        print::to_stderr("nothing was changed");
        return Ok(Exit::Failed);
    }
    let letters = if args.discard_letters { LetterDisposal::Discard } else { LetterDisposal::Keep };
    let actor = dlq::actor(args.actor.as_deref());
    let by = (actor.as_str(), args.reason.as_deref());
    let forgotten = block_on(async { Ok(relays::forget(config, name, by, letters).await?) })?;
    let ForgottenRelay { relay, letters_discarded } = forgotten;
    let letters = match letters_discarded {
        0 => String::new(),
        count => format!(", and {count} of its letters were discarded"),
    };
    print::line(&format!("relay {relay} is given up{letters}; retention goes on without it"))?;
    Ok(Exit::Done)
}

impl From<ForgetError> for Failure {
    fn from(error: ForgetError) -> Self {
        let exit = match &error {
            ForgetError::Database(error) => error.into(),
            ForgetError::Unknown(_) | ForgetError::Led(_) | ForgetError::HasLetters { .. } => {
                Exit::Failed
            }
        };
        Self::said(exit, &error, error.hint())
    }
}

/// Asks at the terminal whether to give up the relay of this name.
fn is_confirmed(name: &str) -> Result<bool, Failure> {
    if !io::stdin().is_terminal() {
        let text = format!("there is no terminal to ask whether to give up relay {name}");
        let hint = Some("say --yes".to_owned());
        return Err(Failure::new(Exit::Usage, Problem { hint, ..Problem::new(text) }));
    }
    print::prompt(&format!(
        "give up relay {name}? what it has not published stays in the outbox for other relays only, \
         and a relay of that name begins anew [y/N] "
    ));
    let mut answer = String::new();
    io::stdin().lock().read_line(&mut answer)?;
    Ok(matches!(answer.trim(), "y" | "Y" | "yes"))
}
