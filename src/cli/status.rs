//! `postrider status`: how far the relay is, read from the database, whether or not it runs.

use super::{
    Globals, ask_each, block_on,
    exit::{Exit, Failure, Level},
    print, print_routes,
};
use crate::{
    config::load::Scope,
    findings::{Finding, Severity},
    logging::printable,
    operate::status::{self, RelayStatus},
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

/// Prints the progress of the relay.
pub(super) fn run(globals: Globals, args: &Args) -> Result<Exit, Failure> {
    let asked = globals.load(Scope::Database).and_then(|loaded| {
        let reports = block_on(ask_each(&loaded, status::status))?;
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
        print_routes(&loaded, (args.json, &reports, text))?;
    } else {
        let texts: Vec<_> = reports.iter().map(text).collect();
        print::line(&texts.join("\n\n"))?;
    }
    Ok(Exit::Done)
}

/// Level of the worst relay, and its text, in the format of monitoring plugins.
fn judge(reports: &[RelayStatus]) -> (Level, String) {
    let rank = |level: &Level| match level {
        Level::Ok => 0,
        Level::Warning => 1,
        Level::Unknown => 2,
        Level::Critical => 3,
    };
    let judged: Vec<_> = reports.iter().map(judge_one).collect();
    let bad: Vec<_> = judged.iter().filter(|(level, _)| *level != Level::Ok).collect();
    let level = judged.iter().map(|(level, _)| *level).max_by_key(rank).unwrap_or(Level::Unknown);
    let lines: Vec<_> = if bad.is_empty() {
        judged.iter().map(|(_, line)| line.as_str()).collect()
    } else {
        bad.iter().map(|(_, line)| line.as_str()).collect()
    };
    (level, lines.join(" / "))
}

fn judge_one(status: &RelayStatus) -> (Level, String) {
    let figures = match (status.backlog, status.lag_seconds, status.dead_letters) {
        (Some(backlog), Some(lag), Some(dead)) => {
            format!("backlog {backlog}, lag {lag:.1} s, dead letters {dead}")
        }
        _ => "backlog unknown".to_owned(),
    };
    let state = format!("relay {} is {}", status.relay, status.state.as_str());
    let Some(worst) = status.findings.first() else {
        return (Level::Ok, format!("{state}, {figures}"));
    };
    let level = match worst.severity {
        Severity::Warning => Level::Warning,
        Severity::Critical => Level::Critical,
    };
    let others = other_codes(worst, &status.findings);
    let more = if others.is_empty() { others } else { format!("; also: {others}") };
    let Finding { code, cause, next, .. } = worst;
    let code = code.as_str();
    (level, format!("{state}, {code}: {cause}; next: {next}{more}, {figures}"))
}

fn text(status: &RelayStatus) -> String {
    let state = status.state.as_str();
    let mut lines = vec![("relay", format!("{}, {state}", status.relay))];
    if let Some(leader) = &status.leader {
        let session = match leader.backend_pid {
            Some(pid) => format!("session {pid} in postgres"),
            None => "through a connection pooler".to_owned(),
        };
        lines.push(("led by", format!("{}, {session}", leader.name)));
    }
    if let Some(progress) = &status.progress {
        let (holder, acquired_at) = (&progress.holder, &progress.acquired_at);
        lines.push(("term", format!("{}, taken by {holder} at {acquired_at}", progress.term)));
        let age = ago(progress.updated_seconds_ago);
        lines.push(("last settled", format!("{} ({age})", progress.updated_at)));
        if let Some(stream) = &progress.stream {
            lines.push(("stream", format!("{stream}, sequence {}", progress.stream_seq)));
        }
    }
    if let (Some(backlog), Some(dead)) = (status.backlog, status.dead_letters) {
        lines.push(("backlog", waiting(backlog, status)));
        lines.push(("dead letters", dead.to_string()));
    }
    for Finding { code, severity, cause, next } in &status.findings {
        lines.push((severity.as_str(), format!("{}: {cause}", code.as_str())));
        lines.push(("  next", next.clone()));
    }
    let rows = lines.iter().map(|(name, text)| format!("{name:<13} {}", printable(text)));
    rows.collect::<Vec<_>>().join("\n")
}

/// The codes of all findings, each once, without the code of the worst finding.
fn other_codes(worst: &Finding, findings: &[Finding]) -> String {
    let mut codes: Vec<&str> = Vec::new();
    for finding in findings.iter().filter(|finding| finding.code != worst.code) {
        if !codes.contains(&finding.code.as_str()) {
            codes.push(finding.code.as_str());
        }
    }
    codes.join(", ")
}

/// Number of events that wait to be published, and of letters among them.
fn waiting(backlog: u64, status: &RelayStatus) -> String {
    let letters = [(status.retrying, "retrying"), (status.held, "held behind a letter")];
    let letters: Vec<String> = letters
        .into_iter()
        .filter_map(|(count, state)| count.filter(|count| *count > 0).map(|count| (count, state)))
        .map(|(count, state)| format!("{count} {state}"))
        .collect();
    let letters =
        if letters.is_empty() { String::new() } else { format!(" ({})", letters.join(", ")) };
    match status.oldest_seconds {
        Some(age) => format!("{backlog} events{letters}, the oldest {age:.1} s"),
        None => format!("{backlog} events{letters}"),
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
