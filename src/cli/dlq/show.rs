//! `postrider dlq show`: everything about one letter.

use serde_json::{Value, json};

use super::{
    Exit, Failure, Globals, block_on, list, open,
    print::{self, number},
};
use crate::{
    config::{Config, error::Problem},
    event::AggregateKey,
    logging::printable,
    outbox::operator::{LetterDetail, PayloadPart, Recorded},
};

/// How much of a payload is shown without `--full`.
const SHOWN_BYTES: usize = 4 * 1024;

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

/// What there is to show.
struct Shown {
    detail: LetterDetail,
    /// `None` when the row that held the payload is gone.
    payload: Option<Vec<PayloadPart>>,
    history: Vec<Recorded>,
}

/// Prints one letter.
pub(super) fn run(globals: Globals, args: &Args) -> Result<Exit, Failure> {
    let loaded = globals.load_for_letters()?;
    let shown = block_on(ask(&loaded.config, args))?;
    if args.json {
        print::json(&shown.json())?;
    } else {
        print::line(&shown.text())?;
    }
    Ok(Exit::Done)
}

async fn ask(config: &Config, args: &Args) -> Result<Shown, Failure> {
    let operator = open(config).await?;
    let Some(detail) = operator.letter(args.id).await? else {
        let problem = Problem::new(format!("there is no letter {}", args.id))
            .hint("`postrider dlq list` has their ids; --state shows others than dead ones");
        return Err(Failure::new(Exit::Failed, problem));
    };
    let limit = if args.full { i32::MAX } else { i32::try_from(SHOWN_BYTES).unwrap_or(i32::MAX) };
    let mut payload = operator.payload(args.id, limit).await?;
    if !args.full {
        // So many characters of JSON may be more bytes than that.
        for part in payload.iter_mut().flatten() {
            part.bytes.truncate(beginning(&part.bytes, SHOWN_BYTES).len());
        }
    }
    let history = operator.history(args.id).await?;
    Ok(Shown { detail, payload, history })
}

/// At most so many bytes, and no half character when it is text.
fn beginning(bytes: &[u8], bytes_max: usize) -> &[u8] {
    let cut = bytes.get(..bytes_max).unwrap_or(bytes);
    match str::from_utf8(cut) {
        // Three bytes at most are missing from the last character.
        Err(error) if cut.len() < bytes.len() && cut.len() - error.valid_up_to() < 4 => {
            cut.get(..error.valid_up_to()).unwrap_or(cut)
        }
        _ => cut,
    }
}

impl Shown {
    fn json(&self) -> Value {
        let detail = &self.detail;
        let mut letter = list::as_json(&detail.letter);
        let headers: Value = serde_json::from_str(&detail.headers).unwrap_or(Value::Null);
        let more = json!({
            "last_failed_at": detail.last_failed_at,
            "occurred_at": detail.occurred_at,
            "replaces": detail.replaces,
            "resolution": detail.resolution,
            "resolved_by": detail.resolved_by,
            "resolved_at": detail.resolved_at,
            "reason": detail.reason,
            "stream_seq": detail.stream_seq,
            "event_version": detail.event_version,
            "kind": detail.kind,
            "aggregate_version": detail.aggregate_version,
            "source": detail.source,
            "subject": detail.subject,
            "content_type": detail.content_type,
            "headers": headers,
            "correlation_id": detail.correlation_id,
            "causation_id": detail.causation_id,
            "actor": detail.actor,
            "behind": detail.behind,
            "behind_of": detail.behind_of,
            "payload_in_outbox": detail.payload_omitted,
            "history": self.history.iter().map(recorded_json).collect::<Vec<_>>(),
        });
        if let Value::Object(more) = more {
            letter.extend(more);
        }
        for part in self.payload.iter().flatten() {
            let column = if part.is_binary { "payload_binary" } else { "payload" };
            match str::from_utf8(&part.bytes) {
                Ok(text) => letter.insert(column.to_owned(), json!(text)),
                Err(_) => letter.insert("payload_base64".to_owned(), json!(base64(&part.bytes))),
            };
            letter.insert("payload_truncated".to_owned(), json!(is_truncated(part)));
        }
        Value::Object(letter)
    }

    fn text(&self) -> String {
        let mut lines: Vec<String> = self
            .fields()
            .into_iter()
            .filter_map(|(name, text)| text.map(|text| (name, text)))
            .map(|(name, text)| format!("{name:<14} {}", printable(&text)))
            .collect();
        lines.extend(self.headers().iter().map(|line| format!("{:<14} {line}", "header")));
        lines.extend(self.history.iter().map(|recorded| {
            let line = recorded_line(recorded);
            format!("{:<14} {}", "audit", printable(&line))
        }));
        match self.payload.as_deref() {
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

    fn fields(&self) -> Vec<(&'static str, Option<String>)> {
        let detail = &self.detail;
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
            (
                "fingerprint",
                Some(letter.fingerprint.clone()).filter(|text| *text != letter.error_code),
            ),
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

    /// One header a line as `name: value`; what is no object stands as it is.
    fn headers(&self) -> Vec<String> {
        match serde_json::from_str(&self.detail.headers) {
            Ok(Value::Object(headers)) => headers
                .iter()
                .map(|(name, value)| {
                    let value = value.as_str().map_or_else(|| value.to_string(), str::to_owned);
                    format!("{}: {}", printable(name), printable(&value))
                })
                .collect(),
            _ => vec![printable(&self.detail.headers).into_owned()],
        }
    }
}

fn recorded_json(recorded: &Recorded) -> Value {
    let parsed = |text: &str| serde_json::from_str(text).unwrap_or(Value::Null);
    json!({
        "acted_at": recorded.acted_at,
        "actor": recorded.actor,
        "database_user": recorded.database_user,
        "action": recorded.action,
        "reason": recorded.reason,
        "event_id": recorded.event_id,
        "before": parsed(&recorded.before),
        "after": parsed(&recorded.after),
    })
}

fn recorded_line(recorded: &Recorded) -> String {
    let Recorded { acted_at, actor, database_user, action, reason, .. } = recorded;
    let reason = reason.as_ref().map_or(String::new(), |reason| format!(": {reason}"));
    format!("{acted_at} {action} by {actor} (database user {database_user}){reason}")
}

fn is_truncated(part: &PayloadPart) -> bool {
    i64::try_from(part.bytes.len()).unwrap_or(i64::MAX) < part.whole
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

/// Text line by line, and what is no text as hexadecimal digits.
fn body(part: &PayloadPart) -> String {
    match str::from_utf8(&part.bytes) {
        Ok(text) => text.split('\n').map(printable).collect::<Vec<_>>().join("\n"),
        Err(_) => part.bytes.chunks(LINE_BYTES).map(hex).collect::<Vec<_>>().join("\n"),
    }
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect::<Vec<_>>().join(" ")
}

/// RFC 4648 with padding.
fn base64(bytes: &[u8]) -> String {
    const ALPHABET: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let mut text = String::with_capacity(bytes.len().div_ceil(3) * 4);
    for chunk in bytes.chunks(3) {
        let byte = |index: usize| u32::from(chunk.get(index).copied().unwrap_or_default());
        let bits = byte(0) << 16 | byte(1) << 8 | byte(2);
        for digit in 0..4 {
            let value = (bits >> (18 - 6 * digit)) & 63;
            let letter = ALPHABET.get(value as usize).copied().unwrap_or(b'=');
            text.push(if digit <= chunk.len() { char::from(letter) } else { '=' });
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;

    use super::*;

    #[test]
    fn bytes_are_spelt_in_base64() {
        let spelt =
            ["", "f", "fo", "foo", "foob", "fooba", "foobar"].map(|it| base64(it.as_bytes()));
        assert_eq!(spelt, ["", "Zg==", "Zm8=", "Zm9v", "Zm9vYg==", "Zm9vYmE=", "Zm9vYmFy"]);
        assert_eq!(base64(&[0xff, 0xfe, 0xfd]), "//79");
    }

    #[test]
    fn text_is_not_cut_inside_a_character() {
        assert_eq!(beginning("aä".as_bytes(), 2), b"a");
        assert_eq!(beginning("aä".as_bytes(), 3), "aä".as_bytes());
        assert_eq!(beginning(&[0xff; 8], 4), [0xff; 4]);
    }

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
