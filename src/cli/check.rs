//! `postrider check`: reports every problem that a start would meet, all at once and without
//! changing anything.

mod broker;
mod database;
mod leadership;
mod requests;
mod room;
mod stream;

use serde_json::{Value, json};

use super::{
    Globals, block_on,
    exit::{Exit, Failure},
    print,
};
use crate::{
    config::{
        Config,
        load::{Notice, OneRoute, Scope},
    },
    logging::{self, printable},
};

/// `postrider check`
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// Print JSON
    #[arg(long)]
    json: bool,
}

/// The finding of a check.
#[derive(Debug, Clone)]
struct CheckItem {
    subject: &'static str,
    result: CheckResult,
    text: String,
    hint: Option<String>,
}

/// Result of one check.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum CheckResult {
    /// The checked part is as it should be.
    Fine,
    /// The checked part works, but events or time may be lost.
    Risky,
    /// The checked part does not work; the exit code says why.
    Refused(Exit),
}

impl CheckItem {
    fn fine(subject: &'static str, text: impl Into<String>) -> Self {
        Self { subject, result: CheckResult::Fine, text: text.into(), hint: None }
    }

    fn risky(subject: &'static str, text: impl Into<String>) -> Self {
        Self { subject, result: CheckResult::Risky, text: text.into(), hint: None }
    }

    fn refused(subject: &'static str, exit: Exit, text: impl Into<String>) -> Self {
        Self { subject, result: CheckResult::Refused(exit), text: text.into(), hint: None }
    }

    fn hint(mut self, hint: impl Into<String>) -> Self {
        self.hint = Some(hint.into());
        self
    }
}

/// Runs all checks, prints their findings, and exits with the code of the gravest refusal.
pub(super) fn run(globals: Globals, args: &Args) -> Result<Exit, Failure> {
    let loaded = globals.load_quietly(Scope::Everything)?;
    // The log has warnings of the libraries. It goes to the standard error, beside the findings.
    logging::start_for_command();
    let mut findings = vec![CheckItem::fine("configuration", "complete and within its bounds")];
    findings.extend(loaded.notices.iter().map(|notice| match notice {
        Notice::Info(text) => CheckItem::fine("configuration", text),
        Notice::Warning(text) => CheckItem::risky("configuration", text),
    }));
    let check_each = async {
        let mut found = Vec::new();
        for OneRoute { config, .. } in &loaded.routes {
            found.push((config.relay.name.as_str().to_owned(), check_route(config).await?));
        }
        Ok(found)
    };
    findings.extend(merged(&block_on(check_each)?));
    if args.json {
        print::json(&Value::Array(findings.iter().map(as_json).collect()))?;
    } else {
        print::line(&findings.iter().map(as_text).collect::<Vec<_>>().join("\n"))?;
    }
    let refusals = findings.iter().filter_map(|finding| match finding.result {
        CheckResult::Refused(exit) => Some(exit),
        CheckResult::Fine | CheckResult::Risky => None,
    });
    Ok(Exit::gravest(refusals).unwrap_or(Exit::Done))
}

/// Merges the findings of several routes. A finding that all routes share appears once, any other
/// one with the name of its route.
fn merged(of_routes: &[(String, Vec<CheckItem>)]) -> Vec<CheckItem> {
    let count = of_routes.len();
    let is_of = |finding: &CheckItem, (_, found): &(String, Vec<CheckItem>)| {
        found.iter().any(|it| it.text == finding.text && it.result == finding.result)
    };
    let mut merged: Vec<CheckItem> = Vec::new();
    for (route, findings) in of_routes {
        for finding in findings {
            let is_shared = of_routes.iter().all(|other| is_of(finding, other));
            let mut finding = finding.clone();
            if count > 1 && !is_shared {
                finding.text = format!("route {route}: {}", finding.text);
            }
            if !merged.iter().any(|it| it.text == finding.text && it.result == finding.result) {
                merged.push(finding);
            }
        }
    }
    merged
}

async fn check_route(config: &Config) -> Result<Vec<CheckItem>, Failure> {
    let ((mut findings, progress), (broker, seen)) =
        tokio::join!(database::findings(config), broker::findings(config));
    let is_refused = broker.iter().any(|it| matches!(it.result, CheckResult::Refused(_)));
    findings.extend(broker);
    let seen = seen.and_then(|seen| stream::finding(config, progress.as_ref(), &seen));
    // When the server would refuse to create the stream, the finding that a start creates it is
    // left out.
    findings.extend(seen.filter(|it| !(is_refused && it.result == CheckResult::Fine)));
    Ok(findings)
}

fn word(result: CheckResult) -> &'static str {
    match result {
        CheckResult::Fine => "ok",
        CheckResult::Risky => "warn",
        CheckResult::Refused(_) => "refuse",
    }
}

fn as_text(finding: &CheckItem) -> String {
    let line =
        format!("{:<6} {:<13} {}", word(finding.result), finding.subject, printable(&finding.text));
    match &finding.hint {
        None => line,
        Some(hint) => format!("{line}\n{:<20} hint: {hint}", ""),
    }
}

fn as_json(finding: &CheckItem) -> Value {
    json!({
        "check": finding.subject,
        "result": word(finding.result),
        "text": finding.text,
        "hint": finding.hint,
    })
}
