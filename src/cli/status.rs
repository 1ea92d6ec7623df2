//! `postrider status`: how far the relay is, read from the database, whether or not it runs.

use serde_json::{Value, json};

use super::{
    Globals, block_on,
    exit::{Exit, Failure, Level},
    print,
};
use crate::{
    config::{Config, load::Scope},
    logging::printable,
    metrics::Depth,
    outbox::{Holder, Inspection, Progress, SESSION_SETTINGS},
    pg::{connect::connect, schema::Schema},
};

/// From this age of the oldest waiting event on, `--check` warns.
const LAG_WARNING_SECONDS: f64 = 60.0;

/// From this age on it is critical.
const LAG_CRITICAL_SECONDS: f64 = 120.0;

/// `postrider status`
#[derive(Debug, clap::Args)]
#[expect(clippy::struct_excessive_bools, reason = "each is a flag of the command line")]
pub(super) struct Args {
    /// Print JSON
    #[arg(long)]
    json: bool,
    /// Print one line and exit as monitoring plugins do: 0 ok, 1 warning, 2 critical, 3 unknown
    #[arg(long, conflicts_with = "json")]
    check: bool,
}

/// What is known of one relay.
struct Report {
    relay: String,
    holder: Option<Holder>,
    progress: Option<Progress>,
    depth: Option<Depth>,
}

/// Prints how far the relay is.
pub(super) fn run(globals: Globals, args: &Args) -> Result<Exit, Failure> {
    let report = globals.load(Scope::Database).and_then(|loaded| block_on(ask(&loaded.config)));
    if args.check {
        let (level, line) = match &report {
            Ok(report) => report.judge(),
            Err(failure) => (Level::Unknown, failure.first_line()),
        };
        print::line(&format!("POSTRIDER {} - {}", level.as_str(), printable(&line)))?;
        return Ok(Exit::Checked(level));
    }
    let report = report?;
    if args.json {
        print::json(&report.json())?;
    } else {
        print::line(&report.text())?;
    }
    Ok(Exit::Done)
}

async fn ask(config: &Config) -> Result<Report, Failure> {
    let connection = connect(&config.database, "status", &SESSION_SETTINGS).await?;
    let inspection = Inspection::new(connection, Schema::from(&config.database.schema));
    let relay = config.relay.name.as_str();
    Ok(Report {
        relay: relay.to_owned(),
        progress: inspection.progress(relay).await?,
        holder: inspection.holder(relay).await?,
        depth: inspection.depth(relay).await?,
    })
}

impl Report {
    /// Why nothing is published; what the last holder noted counts only while somebody holds it.
    fn note(&self) -> Option<&str> {
        self.holder.as_ref()?;
        self.progress.as_ref()?.note.as_deref()
    }

    fn state(&self) -> &'static str {
        match (&self.holder, &self.progress, self.note()) {
            (Some(_), _, Some(_)) => "blocked",
            (Some(_), _, None) => "running",
            (None, Some(_), _) => "not running",
            (None, None, _) => "never started",
        }
    }

    fn judge(&self) -> (Level, String) {
        let depth = self.depth.as_ref();
        let lag = depth.and_then(|depth| depth.oldest_seconds).unwrap_or_default();
        let dead = depth.map_or(0, |depth| depth.dead);
        let pending = depth.map_or(0, Depth::backlog);
        let figures = format!("backlog {pending}, lag {lag:.1} s, dead letters {dead}");
        let state = self.state();
        if self.holder.is_none() {
            return (Level::Critical, format!("relay {} is {state}, {figures}", self.relay));
        }
        if let Some(note) = self.note() {
            return (
                Level::Critical,
                format!("relay {} is {state}: {note}, {figures}", self.relay),
            );
        }
        let level = match lag {
            _ if lag >= LAG_CRITICAL_SECONDS => Level::Critical,
            _ if lag >= LAG_WARNING_SECONDS || dead > 0 => Level::Warning,
            _ => Level::Ok,
        };
        (level, format!("relay {} is {state}, {figures}", self.relay))
    }

    fn json(&self) -> Value {
        let holder = self.holder.as_ref().map(
            |holder| json!({ "pid": holder.pid, "application_name": holder.application_name }),
        );
        let progress = self.progress.as_ref();
        let depth = self.depth.as_ref();
        json!({
            "relay": self.relay,
            "state": self.state().replace(' ', "_"),
            "holder": holder,
            "term": progress.map(|progress| progress.term),
            "acquired_at": progress.map(|progress| &progress.acquired_at),
            "settled_at": progress.map(|progress| &progress.updated_at),
            "stream": progress.and_then(|progress| progress.stream.as_ref()),
            "stream_seq": progress.map(|progress| progress.stream_seq),
            "backlog": depth.map(Depth::backlog),
            "lag_seconds": depth.map(|depth| depth.oldest_seconds.unwrap_or_default()),
            "retrying": depth.map(|depth| depth.retrying),
            "dead_letters": depth.map(|depth| depth.dead),
            "held": depth.map(|depth| depth.held),
            "note": self.note(),
        })
    }

    fn text(&self) -> String {
        let mut lines = vec![("relay", format!("{}, {}", self.relay, self.state()))];
        if let Some(holder) = &self.holder {
            let name = holder.application_name.as_deref().unwrap_or("another user's session");
            lines.push(("runs as", format!("{name}, session {} in postgres", holder.pid)));
        }
        if let Some(note) = self.note() {
            lines.push(("blocked by", note.to_owned()));
        }
        if let Some(progress) = &self.progress {
            let Progress { term, holder, acquired_at, .. } = progress;
            lines.push(("term", format!("{term}, taken by {holder} at {acquired_at}")));
            let age = ago(progress.updated_seconds_ago);
            lines.push(("last settled", format!("{} ({age})", progress.updated_at)));
            if let Some(stream) = &progress.stream {
                lines.push(("stream", format!("{stream}, sequence {}", progress.stream_seq)));
            }
        }
        if let Some(depth) = &self.depth {
            lines.push(("backlog", waiting(depth)));
            lines.push(("dead letters", depth.dead.to_string()));
        }
        let hint = match self.state() {
            "never started" | "not running" => Some(("hint", "start it: postrider run".to_owned())),
            _ => None,
        };
        lines.extend(hint);
        let rows = lines.iter().map(|(name, text)| format!("{name:<13} {}", printable(text)));
        rows.collect::<Vec<_>>().join("\n")
    }
}

/// How much waits to be published, and how much of it as letters.
fn waiting(depth: &Depth) -> String {
    let letters: Vec<String> = [(depth.retrying, "retrying"), (depth.held, "held behind a letter")]
        .into_iter()
        .filter(|(count, _)| *count > 0)
        .map(|(count, state)| format!("{count} {state}"))
        .collect();
    let letters =
        if letters.is_empty() { String::new() } else { format!(" ({})", letters.join(", ")) };
    match (depth.backlog(), depth.oldest_seconds) {
        (count, Some(age)) => format!("{count} events{letters}, the oldest {age:.1} s"),
        (count, None) => format!("{count} events{letters}"),
    }
}

fn ago(seconds: f64) -> String {
    match seconds {
        _ if seconds < 60.0 => format!("{seconds:.0} s ago"),
        _ if seconds < 3600.0 => format!("{:.0} min ago", seconds / 60.0),
        _ if seconds < 172_800.0 => format!("{:.0} h ago", seconds / 3600.0),
        _ => format!("{:.0} days ago", seconds / 86_400.0),
    }
}
