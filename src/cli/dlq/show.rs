//! `postrider dlq show`: everything about one letter.

use serde_json::{Map, Value};

use super::{
    Exit, Failure, Globals, block_on,
    print::{self, number},
};
use crate::{
    event::AggregateKey,
    logging::printable,
    operate::letters::{
        self, AuditRow, PayloadPart, ShowError, ShownExtent, ShownLetter, is_truncated,
    },
};

/// Bytes in a line of hexadecimal digits.
const LINE_BYTES: usize = 32;

/// `postrider dlq show`
#[derive(Debug, clap::Args)]
#[expect(clippy::struct_excessive_bools, reason = "each is a flag of the command line")]
pub(in crate::cli) struct Args {
    /// The letter's id, as `dlq list` prints it
    #[arg(value_name = "ID")]
    id: i64,
    /// Print the whole payload, not its first 4 KiB
    #[arg(long)]
    full: bool,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

/// Prints one letter.
pub(super) fn run(globals: Globals, args: &Args) -> Result<Exit, Failure> {
    let loaded = globals.load_for_letters()?;
    let extent = if args.full { ShownExtent::Whole } else { ShownExtent::Beginning };
    let shown = block_on(async { Ok(letters::show(&loaded.config, args.id, extent).await?) })?;
    if args.json {
        print::json(&shown)?;
    } else {
        print::line(&text(&shown))?;
    }
    Ok(Exit::Done)
}

impl From<ShowError> for Failure {
    fn from(error: ShowError) -> Self {
        let exit = match &error {
            ShowError::Database(error) => error.into(),
            ShowError::Unknown(_) => Exit::Failed,
        };
        Self::said(exit, &error, error.hint())
    }
}

fn text(shown: &ShownLetter) -> String {
    let mut lines: Vec<String> = fields(shown)
        .into_iter()
        .filter_map(|(name, text)| text.map(|text| (name, text)))
        .map(|(name, text)| format!("{name:<14} {}", printable(&text)))
        .collect();
    lines.extend(headers(shown).iter().map(|line| format!("{:<14} {line}", "header")));
    lines.extend(shown.history.iter().map(|entry| {
        let line = audit_line(entry);
        format!("{:<14} {}", "audit", printable(&line))
    }));
    match shown.payload.0.as_deref() {
        None => lines.push(format!("{:<14} gone: its row is not in the outbox", "payload")),
        Some([]) => lines.push(format!("{:<14} none", "payload")),
        Some(parts) => {
            for part in parts {
                lines.push(format!("{:<14} {}", "payload", title(part)));
                lines.push(String::new());
                lines.push(body(part));
            }
        }
    }
    lines.join("\n")
}

fn fields(shown: &ShownLetter) -> Vec<(&'static str, Option<String>)> {
    let detail = &shown.detail;
    let letter = &detail.letter;
    let resolution = detail.resolution.as_ref().map(|resolution| {
        let by = detail.resolved_by.as_deref().unwrap_or("the relay");
        let at = detail.resolved_at.as_deref().unwrap_or_default();
        format!("{resolution} by {by} at {at}")
    });
    let state = match (&detail.resolution, detail.behind_of) {
        (Some(_), _) => format!("resolved (was {})", letter.state),
        (None, Some(head)) if letter.state != "dead" => {
            format!("{}, behind letter {head}", letter.state)
        }
        (None, _) => letter.state.clone(),
    };
    vec![
        ("letter", Some(format!("{} of relay {}", letter.id, letter.relay))),
        ("state", Some(state)),
        ("resolution", resolution),
        ("because", detail.reason.clone()),
        ("stream", detail.stream_seq.map(|seq| format!("sequence {seq}"))),
        ("error", Some(format!("{}: {}", letter.error_code, letter.error))),
        ("fingerprint", Some(letter.fingerprint.clone()).filter(|text| *text != letter.error_code)),
        ("attempts", Some(letter.attempts.to_string())),
        ("first failed", Some(letter.first_failed_at.clone())),
        (
            "last failed",
            Some(detail.last_failed_at.clone()).filter(|time| *time != letter.first_failed_at),
        ),
        ("died", letter.dead_at.clone()),
        ("next attempt", letter.next_attempt_at.clone()),
        ("held behind it", (detail.behind > 0).then(|| number(detail.behind.unsigned_abs()))),
        ("event", Some(letter.event_id.to_string())),
        ("replaces", detail.replaces.map(|id| id.to_string())),
        ("type", Some(format!("{} (version {})", letter.event_type, detail.event_version))),
        ("kind", Some(detail.kind.clone())),
        ("key", letter.key.as_ref().map(|key| AggregateKey::as_str(key).to_owned())),
        ("key version", detail.aggregate_version.map(|version| version.to_string())),
        ("seq", Some(letter.seq.to_string())),
        ("occurred", Some(detail.occurred_at.clone())),
        ("source", detail.source.clone()),
        ("subject", detail.subject.clone()),
        ("correlation", detail.correlation_id.clone()),
        ("causation", detail.causation_id.clone()),
        ("actor", detail.actor.clone()),
        ("content type", Some(detail.content_type.clone())),
    ]
}

/// The headers, each on a line as `name: value`. A value that is no object is shown as it is.
fn headers(shown: &ShownLetter) -> Vec<String> {
    let text = &shown.detail.headers;
    let Ok(headers) = serde_json::from_str::<Map<String, Value>>(text) else {
        return vec![printable(text).into_owned()];
    };
    let line = |(name, value): (&String, &Value)| {
        let value = value.as_str().map_or_else(|| value.to_string(), str::to_owned);
        format!("{}: {}", printable(name), printable(&value))
    };
    headers.iter().map(line).collect()
}

fn audit_line(entry: &AuditRow) -> String {
    let AuditRow { acted_at, actor, database_user, action, reason, .. } = entry;
    let reason = reason.as_ref().map_or(String::new(), |reason| format!(": {reason}"));
    format!("{acted_at} {action} by {actor} (database user {database_user}){reason}")
}

fn title(part: &PayloadPart) -> String {
    let kind = if part.is_binary { "binary" } else { "json" };
    let whole = number(part.whole.unsigned_abs());
    if is_truncated(part) {
        let shown = number(part.bytes.len() as u64);
        format!("{kind}, {whole} bytes, the first {shown}; --full shows all")
    } else {
        format!("{kind}, {whole} bytes")
    }
}

/// The payload as lines of text, or as hexadecimal digits when it is not UTF-8.
fn body(part: &PayloadPart) -> String {
    match str::from_utf8(&part.bytes) {
        Ok(text) => text.split('\n').map(printable).collect::<Vec<_>>().join("\n"),
        Err(_) => part.bytes.chunks(LINE_BYTES).map(hex).collect::<Vec<_>>().join("\n"),
    }
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect::<Vec<_>>().join(" ")
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;

    use super::*;

    #[test]
    fn what_a_terminal_would_obey_stays_within_its_line() {
        let part = |bytes: &'static [u8]| PayloadPart {
            bytes: Bytes::from_static(bytes),
            whole: 5_000,
            is_binary: true,
        };
        assert_eq!(body(&part(b"{\n\"a\": \"\x1b[2J\r\"}")), "{\n\"a\": \"\\u{1b}[2J\\r\"}");
        assert_eq!(body(&part(b"\xff\x00")), "ff 00");
        assert_eq!(title(&part(b"\xff\x00")), "binary, 5,000 bytes, the first 2; --full shows all");
    }
}
