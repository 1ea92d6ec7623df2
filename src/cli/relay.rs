//! `postrider relay`: the relays that this outbox knows, and giving one up that nobody runs.

use std::io::{self, BufRead as _, IsTerminal as _};

use serde_json::json;

use super::{
    Globals, block_on, dlq,
    exit::{Exit, Failure},
    print,
};
use crate::{
    config::{Config, error::Problem, load::Scope},
    logging::printable,
    outbox::{GivenUp, Inspection, Letters, RelayRow, SESSION_SETTINGS},
    pg::{connect::connect, schema::Schema},
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
    /// Who you are, for the audit [default: the user of the system]
    #[arg(long, value_name = "NAME", value_parser = dlq::name)]
    actor: Option<String>,
    /// Discard its unresolved letters too
    #[arg(long)]
    discard_letters: bool,
    /// Do not ask
    #[arg(long)]
    yes: bool,
}

/// Runs one of them.
pub(super) fn run(globals: Globals, command: &Command) -> Result<Exit, Failure> {
    let loaded = globals.load(Scope::Database)?;
    match command {
        Command::List(args) => list(&loaded.config, args),
        Command::Forget(args) => forget(&loaded.config, args).map_err(Failure::of_operator),
    }
}

async fn open(config: &Config) -> Result<Inspection, Failure> {
    let connection = connect(&config.database, "relay", &SESSION_SETTINGS).await?;
    Ok(Inspection::new(connection, Schema::from(&config.database.schema)))
}

fn list(config: &Config, args: &List) -> Result<Exit, Failure> {
    let relays = block_on(async { Ok::<_, Failure>(open(config).await?.relays().await?) })?;
    let ours = config.relay.siblings.as_slice();
    let retention = config.relay.retention.0.as_secs_f64();
    if args.json {
        let relays: Vec<_> = relays
            .iter()
            .map(|row| {
                json!({
                    "relay": row.relay,
                    "state": state(row, ours, retention).replace(' ', "_"),
                    "holder": row.holder,
                    "idle_seconds": row.idle_seconds,
                    "behind_at_most": row.behind_at_most,
                    "letters": row.letters,
                    "stream": row.stream,
                })
            })
            .collect();
        print::json(&json!({ "relays": relays }))?;
        return Ok(Exit::Done);
    }
    let header = ["relay", "state", "last wrote", "behind at most", "letters", "stream"];
    let mut rows = vec![header.map(str::to_owned)];
    rows.extend(relays.iter().map(|row| {
        [
            printable(&row.relay).into_owned(),
            state(row, ours, retention).to_owned(),
            super::status::ago(row.idle_seconds),
            print::number(row.behind_at_most.unsigned_abs()),
            print::number(row.letters.unsigned_abs()),
            row.stream.as_deref().map_or_else(|| "-".to_owned(), |it| printable(it).into_owned()),
        ]
    }));
    print::line(&print::columns(&rows))?;
    Ok(Exit::Done)
}

fn state(row: &RelayRow, ours: &[String], retention: f64) -> &'static str {
    if row.is_led {
        "running"
    } else if row.is_abandoned(ours, retention) {
        "abandoned"
    } else {
        "not running"
    }
}

fn forget(config: &Config, args: &Forget) -> Result<Exit, Failure> {
    let name = &args.name;
    if !args.yes && !is_confirmed(name)? {
        print::to_stderr("nothing was changed");
        return Ok(Exit::Failed);
    }
    let letters = if args.discard_letters { Letters::Discard } else { Letters::Keep };
    let actor = dlq::actor(args.actor.as_deref());
    let outcome = block_on(async {
        let inspection = open(config).await?;
        let by = (actor.as_str(), args.reason.as_deref());
        Ok::<_, Failure>(inspection.forget_relay(name, by, letters).await?)
    })?;
    let refused = |text: String, hint: &str| {
        let problem = Problem { hint: Some(hint.to_owned()), ..Problem::new(text) };
        Err(Failure::new(Exit::Failed, problem))
    };
    match outcome {
        GivenUp::Gone(letters) => {
            let letters = match letters {
                0 => String::new(),
                count => format!(", and {count} of its letters were discarded"),
            };
            print::line(&format!(
                "relay {name} is given up{letters}; retention goes on without it"
            ))?;
            Ok(Exit::Done)
        }
        GivenUp::Unknown => refused(format!("there is no relay {name}"), "postrider relay list"),
        GivenUp::Led => refused(
            format!("an instance runs relay {name}"),
            "stop it first; postrider relay list shows when nobody runs it",
        ),
        GivenUp::HasLetters(count) => refused(
            format!("relay {name} has {count} unresolved letters"),
            "look at them with postrider dlq list --route NAME; then redrive them and run the \
             relay once, or say --discard-letters",
        ),
    }
}

/// Asks the person at the terminal.
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
