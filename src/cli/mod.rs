//! The command line: the tree of commands, with a file for each command.

mod audit;
mod check;
mod config;
mod dev;
mod dlq;
pub mod exit;
mod migrate;
mod print;
mod reconcile;
mod relay;
mod run;
mod status;
mod why;

use std::{ffi::OsString, path::PathBuf};

use serde::Serialize;

use clap::{CommandFactory as _, FromArgMatches as _, Parser, Subcommand};

use crate::{
    config::{
        Config,
        error::Problem,
        load::{Loaded, Notice, OneRoute, Scope, Sources},
        name::RelayName,
    },
    logging,
};
use exit::{Exit, Failure};

/// Carries committed events from a Postgres outbox to NATS JetStream, once and in order.
#[derive(Debug, Parser)]
#[command(name = "postrider", version, arg_required_else_help = true, after_help = AFTER_HELP)]
struct Cli {
    #[command(flatten)]
    globals: Globals,
    #[command(subcommand)]
    command: Command,
}

/// The options of every command.
#[derive(Debug, clap::Args)]
#[command(next_help_heading = "Configuration")]
struct Globals {
    /// The configuration file.
    #[arg(long, global = true, value_name = "FILE", help = CONFIG_HELP)]
    config: Option<PathBuf>,
    /// Keys that the command line sets.
    #[arg(long = "set", global = true, value_name = "KEY=VALUE", help = SET_HELP)]
    settings: Vec<String>,
    /// The route that a command is about.
    #[arg(long, global = true, value_name = "NAME", help = ROUTE_HELP)]
    route: Option<String>,
}

const CONFIG_HELP: &str =
    "The file [default: $POSTRIDER_CONFIG, ./postrider.toml, /etc/postrider/postrider.toml]";

const SET_HELP: &str = "Set one key, such as relay.batch_events=500; not for secrets";

const ROUTE_HELP: &str = "Only this [[route]] [default: all of them]";

const AFTER_HELP: &str = "\
Every key can also be set by the environment: POSTRIDER__RELAY__BATCH_EVENTS=500.
The --help of each command lists its exit codes.";

#[derive(Debug, Subcommand)]
enum Command {
    /// Carry events from the outbox to the stream until stopped
    Run(run::Args),
    /// Create or update the tables and functions in the database
    Migrate(migrate::Args),
    /// Find what would keep `run` from working, without changing anything
    Check(check::Args),
    /// Print how far the relay is, whether or not it runs
    Status(status::Args),
    /// Show the events that could not be published, and decide about them
    #[command(subcommand)]
    Dlq(dlq::Command),
    /// Say what the events of one key wait for, and what to do
    Why(why::Args),
    /// Prove that every committed event is published, pending, dead or discarded
    Audit(audit::Args),
    /// Publish again what the stream has lost
    Reconcile(reconcile::Args),
    /// List the relays of this outbox, or give one up that nobody runs
    #[command(subcommand)]
    Relay(relay::Command),
    /// Start throwaway servers and a relay to play with, or check one run of the relay
    Dev(dev::Args),
    /// Show the configuration
    #[command(subcommand)]
    Config(config::Command),
}

/// Runs a command line to its end.
pub fn main(args: impl IntoIterator<Item = OsString>) -> Exit {
    let parsed = with_codes(Cli::command(), "").try_get_matches_from(args);
    let cli = match parsed.and_then(|matches| Cli::from_arg_matches(&matches)) {
        Ok(cli) => cli,
        Err(error) => {
            // For `--help` and `--version`, clap returns an error with exit code 0.
            let is_printed = error.print().is_ok();
            return if is_printed && error.exit_code() == 0 { Exit::Done } else { Exit::Usage };
        }
    };
    match run(cli) {
        Ok(exit) => exit,
        Err(failure) => {
            let texts: Vec<String> = failure.problems.iter().map(Problem::to_string).collect();
            if !texts.is_empty() {
                print::to_stderr(&texts.join("\n\n"));
            }
            failure.exit
        }
    }
}

/// The tree of commands, each with its exit codes in its help.
fn with_codes(command: clap::Command, path: &str) -> clap::Command {
    let command = match exit::help(path) {
        Some(codes) => command.after_help(codes),
        None => command,
    };
    command.mut_subcommands(|sub| {
        let path = format!("{path} {}", sub.get_name()).trim_start().to_owned();
        with_codes(sub, &path)
    })
}

fn run(cli: Cli) -> Result<Exit, Failure> {
    let Cli { globals, command } = cli;
    match command {
        Command::Run(args) => run::run(globals, &args),
        Command::Migrate(args) => migrate::run(globals, &args),
        Command::Check(args) => check::run(globals, &args),
        Command::Status(args) => status::run(globals, &args),
        Command::Dlq(command) => dlq::run(globals, &command),
        Command::Why(args) => why::run(globals, &args),
        Command::Audit(args) => audit::run(globals, &args),
        Command::Relay(command) => relay::run(globals, &command),
        Command::Reconcile(args) => reconcile::run(globals, &args),
        Command::Dev(args) => dev::run(&globals, &args),
        Command::Config(config::Command::Show(args)) => config::show(globals, &args),
    }
}

impl Globals {
    /// Loads the configuration for a command that a person runs. Logs warnings and errors only, and
    /// among them the warnings about the configuration.
    fn load(self, scope: Scope) -> Result<Loaded, Failure> {
        let loaded = self.load_quietly(scope)?;
        logging::start_for_command();
        for notice in &loaded.notices {
            if let Notice::Warning(text) = notice {
                tracing::warn!("{text}");
            }
        }
        Ok(loaded)
    }

    /// Loads the configuration without logging what it warns of: the caller prints these notices.
    fn load_quietly(self, scope: Scope) -> Result<Loaded, Failure> {
        let route = self.route.clone();
        let mut loaded = Config::load(&self.sources(), scope)?;
        if let Some(route) = route {
            choose(&mut loaded, &route)?;
        }
        Ok(loaded)
    }

    /// Loads the configuration for a command about letters. Its `--route` may also name a relay
    /// that the configuration no longer has, because that relay's letters are still there.
    fn load_for_letters(mut self) -> Result<Loaded, Failure> {
        let route = self.route.take();
        let mut loaded = self.load(Scope::Database)?;
        let Some(route) = route else { return Ok(loaded) };
        let is_known = loaded.routes.iter().any(|it| it.config.is_of(&route));
        match RelayName::parse(&route) {
            Some(name) if !is_known => {
                loaded.config.relay.name = name;
                let (config, origins) = (loaded.config.clone(), loaded.origins.clone());
                loaded.routes = vec![OneRoute { config, origins }];
            }
            _ => choose(&mut loaded, &route)?,
        }
        Ok(loaded)
    }

    /// The sources of the configuration: the environment, the named file and the keys of the
    /// command line.
    fn sources(self) -> Sources {
        Sources::from_environment(self.config, self.settings)
    }
}

/// Removes all routes but the named one from the loaded configuration.
fn choose(loaded: &mut Loaded, route: &str) -> Result<(), Failure> {
    let names: Vec<_> =
        loaded.routes.iter().map(|it| it.config.relay.name.as_str().to_owned()).collect();
    loaded.routes.retain(|it| it.config.is_of(route));
    let Some(only) = loaded.routes.first() else {
        let problem = Problem::new(format!("there is no route {}", route.escape_debug()))
            .hint(format!("the routes are {}", names.join(", ")));
        return Err(Failure::new(Exit::Usage, problem));
    };
    (loaded.config, loaded.origins) = (only.config.clone(), only.origins.clone());
    Ok(())
}

/// Calls `ask` for each route in turn, and returns the answers in the order of the routes.
async fn ask_each<T, E>(
    loaded: &Loaded,
    ask: impl AsyncFn(&Config) -> Result<T, E>,
) -> Result<Vec<T>, Failure>
where
    Failure: From<E>,
{
    let mut answers = Vec::with_capacity(loaded.routes.len());
    for route in &loaded.routes {
        answers.push(ask(&route.config).await?);
    }
    Ok(answers)
}

/// Prints an answer for each route. A single answer is printed alone. Several answers become a JSON
/// list, or texts under the names of their routes.
fn print_routes<T: Serialize>(
    loaded: &Loaded,
    (is_json, answers, text): (bool, &[T], impl Fn(&T) -> String),
) -> Result<(), Failure> {
    match answers {
        [only] if is_json => print::json(only)?,
        [only] => print::line(&text(only))?,
        _ if is_json => print::json(&answers)?,
        _ => {
            let name = |route: &OneRoute| format!("route {}", route.config.relay.name);
            let texts = loaded.routes.iter().map(name).zip(answers.iter().map(text));
            let texts: Vec<_> = texts.map(|(name, text)| format!("{name}\n{text}")).collect();
            print::line(&texts.join("\n\n"))?;
        }
    }
    Ok(())
}

/// Runs a command's asynchronous part.
fn block_on<T>(command: impl Future<Output = Result<T, Failure>>) -> Result<T, Failure> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let runtime = runtime.map_err(|error| {
        Failure::new(Exit::Software, Problem::new(format!("could not start threads: {error}")))
    })?;
    runtime.block_on(command)
}
