//! `postrider status`: how far the relay is, read from the database, whether or not it runs.

use serde_json::{Value, json};

use super::{
    Globals, block_on,
    exit::{Exit, Failure, Level},
    print, print_each,
    standing::{self, Standing},
};
use crate::{
    config::{Config, load::Scope},
    findings::{self, Facts, Finding, Severity},
    logging::printable,
    metrics::Depth,
    outbox::{Inspection, Losses, Progress, SESSION_SETTINGS},
    pg::{connect::connect, error::QueryError, schema::Schema},
    relay::{
        producers,
        status::{blocker, blocker_of},
    },
};

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

/// What is known of one relay, as the database says.
struct Report {
    standing: Standing,
    /// `None` too when it could not be measured.
    depth: Option<Depth>,
    lost: u64,
    findings: Vec<Finding>,
}

/// Prints how far the relay is.
pub(super) fn run(globals: Globals, args: &Args) -> Result<Exit, Failure> {
    let asked = globals.load(Scope::Database).and_then(|loaded| {
        let ask_each = async {
            let mut reports = Vec::new();
            for route in &loaded.routes {
                reports.push(ask(&route.config).await?);
            }
            Ok(reports)
        };
        let reports = block_on(ask_each)?;
        Ok((loaded, reports))
    });
    if args.check {
        let (level, line) = match &asked {
            Ok((_, reports)) => judge(reports),
            Err(failure) => (Level::Unknown, failure.one_line()),
        };
        print::line(&format!("POSTRIDER {} - {}", level.as_str(), printable(&line)))?;
        return Ok(Exit::Checked(level));
    }
    let (loaded, reports) = asked?;
    // Each text begins with the name of its relay.
    if args.json || reports.len() == 1 {
        let json = |index: usize| reports.get(index).map(Report::json).unwrap_or_default();
        let text = |index: usize| reports.get(index).map(Report::text).unwrap_or_default();
        print_each(&loaded, (args.json, json, text))?;
    } else {
        let texts: Vec<_> = reports.iter().map(Report::text).collect();
        print::line(&texts.join("\n\n"))?;
    }
    Ok(Exit::Done)
}

/// The worst of several relays, as monitoring plugins say it.
fn judge(reports: &[Report]) -> (Level, String) {
    let rank = |level: &Level| match level {
        Level::Ok => 0,
        Level::Warning => 1,
        Level::Unknown => 2,
        Level::Critical => 3,
    };
    let judged: Vec<_> = reports.iter().map(Report::judge).collect();
    let bad: Vec<_> = judged.iter().filter(|(level, _)| *level != Level::Ok).collect();
    let level = judged.iter().map(|(level, _)| *level).max_by_key(rank).unwrap_or(Level::Unknown);
    let lines: Vec<_> = if bad.is_empty() {
        judged.iter().map(|(_, line)| line.as_str()).collect()
    } else {
        bad.iter().map(|(_, line)| line.as_str()).collect()
    };
    (level, lines.join(" / "))
}

/// The answers of the database, as far as they have come.
struct Asked {
    standing: Standing,
    depth: Option<Depth>,
    losses: Losses,
    facts: Facts,
}

async fn ask(config: &Config) -> Result<Report, Failure> {
    let connection = connect(&config.database, "status", &SESSION_SETTINGS).await?;
    let inspection = Inspection::new(connection, Schema::from(&config.database.schema));
    let standing = Standing::unknown(config.relay.name.as_str());
    let (losses, facts) = (Losses::default(), Facts::default());
    let mut asked = Asked { standing, depth: None, losses, facts };
    if let Err(error) = asked.ask(&inspection, config).await {
        // Whatever is asked after it would wait for the same lock.
        let Some(blocker) = blocker_of(&error) else { return Err(error.into()) };
        asked.facts.blocker = Some(blocker);
    }
    let Asked { standing, depth, losses, facts } = asked;
    let alarms = [facts.alarms, lost(&losses)].concat();
    let findings = findings::of(&Facts {
        alarms,
        depth,
        oldest_seconds: depth.and_then(|depth| depth.oldest_seconds).unwrap_or_default(),
        blocker: facts.blocker,
        abandoned: facts.abandoned,
        ..standing.facts()
    });
    Ok(Report { standing, depth, lost: losses.events, findings })
}

fn lost(losses: &Losses) -> Vec<Finding> {
    findings::lost(losses.events, losses.noticed_at.as_deref()).into_iter().collect()
}

impl Asked {
    /// Asks for everything, what needs no lock first.
    async fn ask(&mut self, inspection: &Inspection, config: &Config) -> Result<(), QueryError> {
        let relay = config.relay.name.as_str();
        let queue = inspection.queue(relay).await?;
        let facts = &mut self.facts;
        facts.blocker =
            queue.as_ref().filter(|queue| queue.ours > 0).map(|queue| blocker(&queue.by));
        facts.alarms = producers::findings(&[], queue.as_ref());
        self.standing = Standing::ask(inspection, relay).await?;
        self.depth = inspection.depth(relay).await?;
        self.losses = inspection.losses(relay).await?;
        let hindrances = inspection.hindered_producers().await?;
        facts.alarms.extend(producers::findings(&hindrances, None));
        facts.alarms.extend(standing::broken(inspection, relay).await?);
        let retention = config.relay.retention.0.as_secs_f64();
        let relays = inspection.relays().await?;
        let ours = &config.relay.siblings;
        let stranded = relays.iter().filter(|row| row.has_stranded_letters(ours));
        facts.alarms.extend(stranded.map(|row| findings::stranded(&row.relay, row.letters)));
        facts.abandoned = relays
            .into_iter()
            .filter(|row| row.is_abandoned(&config.relay.siblings, retention))
            .map(|row| (row.relay, row.idle_seconds))
            .collect();
        Ok(())
    }
}

impl Report {
    fn judge(&self) -> (Level, String) {
        let figures = match &self.depth {
            Some(depth) => {
                let lag = depth.oldest_seconds.unwrap_or_default();
                let pending = depth.backlog();
                format!("backlog {pending}, lag {lag:.1} s, dead letters {}", depth.dead)
            }
            None => "backlog unknown".to_owned(),
        };
        let state = format!("relay {} is {}", self.standing.relay, self.standing.state());
        let Some(worst) = self.findings.first() else {
            return (Level::Ok, format!("{state}, {figures}"));
        };
        let level = match worst.severity {
            Severity::Warning => Level::Warning,
            Severity::Critical => Level::Critical,
        };
        let others = other_codes(worst, &self.findings);
        let more = if others.is_empty() { others } else { format!("; also: {others}") };
        let Finding { code, cause, next, .. } = worst;
        let code = code.as_str();
        (level, format!("{state}, {code}: {cause}; next: {next}{more}, {figures}"))
    }

    fn json(&self) -> Value {
        let standing = &self.standing;
        let leader = standing
            .leader
            .as_ref()
            .map(|leader| json!({ "name": leader.holder, "backend_pid": leader.backend_pid }));
        let progress = standing.progress.as_ref();
        let depth = self.depth.as_ref();
        let findings = self.findings.iter().map(|finding| {
            json!({
                "code": finding.code.as_str(),
                "severity": finding.severity.as_str(),
                "cause": finding.cause,
                "next": finding.next,
            })
        });
        json!({
            "relay": standing.relay,
            "state": standing.state().replace(' ', "_"),
            "leader": leader,
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
            "lost": self.lost,
            "note": standing.note(),
            "reported_seconds_ago": progress
                .and_then(|progress| progress.report.as_ref().map(|_| progress.silent_seconds)),
            "findings": findings.collect::<Vec<_>>(),
        })
    }

    fn text(&self) -> String {
        let standing = &self.standing;
        let mut lines = vec![("relay", format!("{}, {}", standing.relay, standing.state()))];
        if let Some(leader) = &standing.leader {
            let session = match leader.backend_pid {
                Some(pid) => format!("session {pid} in postgres"),
                None => "through a connection pooler".to_owned(),
            };
            lines.push(("led by", format!("{}, {session}", leader.holder)));
        }
        if let Some(progress) = &standing.progress {
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
        for Finding { code, severity, cause, next } in &self.findings {
            lines.push((severity.as_str(), format!("{}: {cause}", code.as_str())));
            lines.push(("  next", next.clone()));
        }
        let rows = lines.iter().map(|(name, text)| format!("{name:<13} {}", printable(text)));
        rows.collect::<Vec<_>>().join("\n")
    }
}

/// The codes of all findings but those of the worst one's code, each once.
fn other_codes(worst: &Finding, findings: &[Finding]) -> String {
    let mut codes: Vec<&str> = Vec::new();
    for finding in findings.iter().filter(|finding| finding.code != worst.code) {
        if !codes.contains(&finding.code.as_str()) {
            codes.push(finding.code.as_str());
        }
    }
    codes.join(", ")
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

pub(super) fn ago(seconds: f64) -> String {
    match seconds {
        _ if seconds < 60.0 => format!("{seconds:.0} s ago"),
        _ if seconds < 3600.0 => format!("{:.0} min ago", seconds / 60.0),
        _ if seconds < 172_800.0 => format!("{:.0} h ago", seconds / 3600.0),
        _ => format!("{:.0} days ago", seconds / 86_400.0),
    }
}
