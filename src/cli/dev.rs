//! `postrider dev`: throwaway servers and a relay to play with, or one checked run.

mod once;
mod play;

use std::io::{IsTerminal as _, stderr};

use super::{
    Globals, block_on,
    exit::{Exit, Failure},
    print::{self, number},
};
use crate::{
    config::error::Problem,
    dev::{
        once::{OnceError, run as run_once},
        stage::{Ports, Stage, StageError},
        workload,
    },
    logging,
};
use once::{RunFigures, RunText, faults};
use play::Shop;

/// `postrider dev`
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// Send a workload through, check what arrived, and end
    #[arg(long)]
    once: bool,
    #[command(flatten)]
    play: PlayArgs,
    #[command(flatten)]
    workload: WorkloadArgs,
}

/// The options of `postrider dev` without `--once`: servers and a relay to play with.
#[derive(Debug, clap::Args)]
struct PlayArgs {
    /// Without the small shop that shows events: servers and a relay, and nothing else
    #[arg(long, conflicts_with = "once")]
    no_demo: bool,
}

/// The options of `postrider dev --once`: one run whose result is checked.
#[derive(Debug, clap::Args)]
struct WorkloadArgs {
    /// How many events the workload commits
    #[arg(long, value_name = "N", default_value_t = 10_000, requires = "once")]
    events: u64,
    /// Print one line of JSON instead of a report
    #[arg(long, requires = "once")]
    json: bool,
    /// Repeat the workload of an earlier run [default: another one each time]
    #[arg(long, value_name = "N", requires = "once")]
    seed: Option<u64>,
}

pub(super) fn run(globals: &Globals, args: &Args) -> Result<Exit, Failure> {
    logging::start_for_command();
    block_on(async {
        say(&args.workload, "starting a throwaway Postgres, nats-server and relay …");
        let ports = if args.once { Ports::Any } else { Ports::Kept };
        let mut stage = Stage::set_up(&globals.settings, ports).await?;
        if args.once {
            once(&mut stage, &args.workload).await
        } else {
            let shop = if args.play.no_demo { Shop::Closed } else { Shop::Open };
            Box::pin(play::play(&mut stage, shop)).await
        }
    })
}

async fn once(stage: &mut Stage, args: &WorkloadArgs) -> Result<Exit, Failure> {
    let seed = args.seed.unwrap_or_else(|| uuid::Uuid::new_v4().as_u64_pair().0 >> 32);
    let options = workload::Options {
        url: stage.database_url(),
        events: args.events,
        seed,
        ..workload::Options::default()
    };
    say(args, &format!("8 writers commit {} events (seed {seed}) …", number(args.events)));
    let is_shown = !args.json && stderr().is_terminal();
    let outcome = run_once(stage, options, |committed, stored| {
        if is_shown {
            let text = format!("{} committed, {} stored", number(committed), number(stored));
            print::progress(&text);
        }
    })
    .await?;
    if is_shown {
        print::progress("");
    }
    if args.json {
        print::line(&serde_json::to_string(&RunFigures::from(&outcome)).unwrap_or_default())?;
    } else {
        print::line(&format!("\n{}", RunText { outcome: &outcome, seed }))?;
    }
    if outcome.is_clean() {
        return Ok(Exit::Done);
    }
    print::to_stderr(&faults(&outcome, seed));
    Ok(Exit::Failed)
}

/// Prints a text for a person. With `--json`, which a program reads, it prints nothing.
fn say(args: &WorkloadArgs, text: &str) {
    if !args.json {
        print::to_stderr(text);
    }
}

impl From<StageError> for Failure {
    fn from(error: StageError) -> Self {
        let exit = match error {
            StageError::Server(_) => Exit::Unavailable,
            StageError::Program { .. } | StageError::NotReady { .. } => Exit::Failed,
        };
        Self::new(exit, Problem::new(error.to_string()))
    }
}

impl From<OnceError> for Failure {
    fn from(error: OnceError) -> Self {
        Self::new(Exit::Failed, Problem::new(format!("could not finish the run: {error}")))
    }
}
