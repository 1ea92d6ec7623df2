//! `postrider dlq edit`: changes a dead letter in place, under a new event id.

use std::{borrow::Cow, collections::BTreeMap, fs, path::PathBuf};

use serde_json::value::RawValue;

use super::{Exit, Failure, Globals, actor, block_on, name, of_letter, open, print, reason};
use crate::{
    config::{Config, error::Problem},
    event::{Event, EventId, Payload, Seq},
    outbox::operator::{Authority, Edit, LetterDetail, NewPayload, Operator, PayloadPart},
    wire::{Encoder, Limits, SubjectTemplate},
};

/// `postrider dlq edit`
#[derive(Debug, clap::Args)]
#[expect(clippy::struct_excessive_bools, reason = "each is a flag of the command line")]
pub(in crate::cli) struct Args {
    /// The letter's id
    #[arg(value_name = "ID")]
    id: i64,
    #[command(flatten)]
    changes: Changes,
    /// Why, for the audit: 1 to 1,000 characters
    #[arg(long, value_name = "TEXT", value_parser = reason, required = true)]
    reason: Option<String>,
    /// Who you are, for the audit [default: the user of the system]
    #[arg(long, value_name = "NAME", value_parser = name)]
    actor: Option<String>,
    /// Have it tried again at once
    #[arg(long)]
    redrive: bool,
    /// Check the change, and do nothing
    #[arg(long)]
    dry_run: bool,
}

/// What to change.
#[derive(Debug, clap::Args)]
#[group(required = true, multiple = true)]
struct Changes {
    /// The new payload
    #[arg(long, value_name = "TEXT", conflicts_with = "payload_file")]
    payload: Option<String>,
    /// A file with the new payload, taken byte for byte
    #[arg(long, value_name = "FILE")]
    payload_file: Option<PathBuf>,
    /// Set a header
    #[arg(long, value_name = "NAME=VALUE", value_parser = header)]
    header: Vec<(String, String)>,
    /// Remove a header
    #[arg(long, value_name = "NAME")]
    remove_header: Vec<String>,
    /// The new subject; empty: the one that the route makes
    #[arg(long, value_name = "SUBJECT")]
    subject: Option<String>,
    /// The new event type
    #[arg(long, value_name = "TYPE")]
    event_type: Option<String>,
}

fn header(text: &str) -> Result<(String, String), String> {
    let (name, value) = text.split_once('=').ok_or("write NAME=VALUE")?;
    Ok((name.to_owned(), value.to_owned()))
}

/// Changes a letter.
pub(super) fn run(globals: Globals, args: &Args) -> Result<Exit, Failure> {
    let loaded = globals.load_for_letters()?;
    block_on(async { apply(of_letter(&loaded, args.id).await?, args).await })
}

async fn apply(config: &Config, args: &Args) -> Result<Exit, Failure> {
    let operator = open(config).await?;
    let detail = dead_letter(&operator, args.id).await?;
    // Which columns hold one; its bytes decide nothing, and may be too many to carry.
    let Some(parts) = operator.payload(args.id, 1).await? else {
        return Err(refused("its payload is gone: its row is not in the outbox".to_owned()));
    };
    let edit = args.changes.edit(&detail, &parts)?;
    let edit = Edit { redrive: args.redrive, ..edit };
    check(config, &detail, &edit, &parts)?;
    if args.dry_run {
        print::line(&format!("would change letter {}", args.id))?;
        return Ok(Exit::Done);
    }
    let authority = Authority { actor: actor(args.actor.as_deref()), reason: args.reason.clone() };
    let Some(event_id) = operator.edit(&edit, &authority).await? else {
        return Err(refused(format!("letter {} was taken by somebody else meanwhile", args.id)));
    };
    let old = detail.letter.event_id;
    print::line(&format!("changed letter {}: event {event_id} replaces {old}", args.id))?;
    if args.redrive {
        print::line("redriven 1 dead letter")?;
    } else {
        print::line(&format!("next: postrider dlq redrive {}", args.id))?;
    }
    Ok(Exit::Done)
}

fn refused(text: String) -> Failure {
    Failure::new(Exit::Failed, Problem::new(text))
}

/// The letter, if it is one that may be edited.
async fn dead_letter(operator: &Operator, id: i64) -> Result<LetterDetail, Failure> {
    let Some(detail) = operator.letter(id).await? else {
        return Err(refused(format!("there is no letter {id}")));
    };
    let letter = &detail.letter;
    if letter.relay != operator.relay() {
        return Err(refused(format!("letter {id} belongs to relay {}", letter.relay)));
    }
    if let Some(resolution) = &detail.resolution {
        return Err(refused(format!("letter {id} is resolved already: {resolution}")));
    }
    if letter.state != "dead" {
        // Of one that is tried nobody knows whether the stream has it already.
        let text = format!("letter {id} is {}; only dead letters can be edited", letter.state);
        return Err(refused(text));
    }
    Ok(detail)
}

impl Changes {
    fn edit(&self, detail: &LetterDetail, parts: &[PayloadPart]) -> Result<Edit, Failure> {
        let letter = &detail.letter;
        let subject = match self.subject.as_deref() {
            None => detail.subject.clone(),
            Some("") => None,
            Some(subject) => Some(subject.to_owned()),
        };
        Ok(Edit {
            id: letter.id,
            event_id: letter.event_id,
            event_type: self.event_type.clone().unwrap_or_else(|| letter.event_type.clone()),
            subject,
            headers: self.headers(&detail.headers)?,
            payload: self.payload(detail, parts)?,
            redrive: false,
        })
    }

    /// The headers as they shall be. What is no object cannot be mended, only replaced.
    fn headers(&self, before: &str) -> Result<String, Failure> {
        if self.header.is_empty() && self.remove_header.is_empty() {
            return Ok(before.to_owned());
        }
        // Values stay as they are written: a number keeps its digits.
        let parsed: Result<BTreeMap<Cow<'_, str>, Cow<'_, RawValue>>, _> =
            serde_json::from_str::<BTreeMap<Cow<'_, str>, &RawValue>>(before)
                .map(|map| map.into_iter().map(|(k, v)| (k, Cow::Borrowed(v))).collect());
        let is_object = parsed.is_ok();
        let mut headers = parsed.unwrap_or_default();
        for name in &self.remove_header {
            if headers.remove(name.as_str()).is_none() && is_object {
                return Err(refused(format!("the letter has no header {name}")));
            }
        }
        for (name, value) in &self.header {
            let value = serde_json::value::to_raw_value(value)
                .map_err(|error| refused(format!("header {name}: {error}")))?;
            headers.insert(Cow::Borrowed(name), Cow::Owned(value));
        }
        serde_json::to_string(&headers).map_err(|error| refused(format!("headers: {error}")))
    }

    /// The new payload, of the kind that the old one has; where that does not tell, the media type
    /// does.
    fn payload(
        &self,
        detail: &LetterDetail,
        parts: &[PayloadPart],
    ) -> Result<Option<NewPayload>, Failure> {
        let bytes = match (&self.payload, &self.payload_file) {
            (None, None) => return Ok(None),
            (Some(text), _) => text.clone().into_bytes(),
            (None, Some(path)) => fs::read(path)
                .map_err(|error| refused(format!("could not read {}: {error}", path.display())))?,
        };
        let is_binary = match parts {
            [part] => part.is_binary,
            _ => !is_json(&detail.content_type),
        };
        if is_binary {
            return Ok(Some(NewPayload::Binary(bytes)));
        }
        let hint = "the letter's payload is JSON; binary payloads stay binary";
        let invalid = |text: String| {
            Failure::new(Exit::Failed, Problem::new(format!("not valid JSON: {text}")).hint(hint))
        };
        serde_json::from_slice::<&RawValue>(&bytes).map_err(|error| invalid(error.to_string()))?;
        let text = String::from_utf8(bytes).map_err(|error| invalid(error.to_string()))?;
        Ok(Some(NewPayload::Json(text)))
    }
}

fn is_json(content_type: &str) -> bool {
    let kind = content_type.split(';').next().unwrap_or_default().trim().to_ascii_lowercase();
    kind == "application/json" || kind.ends_with("+json")
}

/// Makes the message as the relay would; what cannot become one would only die again. The broker's
/// own limits are known to the relay alone.
fn check(
    config: &Config,
    detail: &LetterDetail,
    edit: &Edit,
    parts: &[PayloadPart],
) -> Result<(), Failure> {
    let template = SubjectTemplate::parse(&config.route.subject)
        .map_err(|error| refused(format!("route.subject: {error}")))?;
    let anything = || vec![">".to_owned()];
    let subjects = Some(config.stream.subjects.clone()).filter(|subjects| !subjects.is_empty());
    let limits = Limits {
        stream: config.stream.name.clone(),
        subjects: subjects.unwrap_or_else(anything),
        message_bytes_max: u64::MAX,
        framing_bytes: 0,
    };
    let encoder = Encoder::new(template, config.relay.source.clone()).with_limits(limits);
    match encoder.encode(&event(detail, edit, parts)) {
        Ok(_) => Ok(()),
        Err(refusal) => {
            let problem = Problem::new(format!("it would die again: {refusal}"))
                .hint("nothing was changed; change that too");
            Err(Failure::new(Exit::Failed, problem))
        }
    }
}

fn event(detail: &LetterDetail, edit: &Edit, parts: &[PayloadPart]) -> Event {
    let payload = match (&edit.payload, parts) {
        (Some(NewPayload::Json(text)), _) => Payload::Bytes(text.clone().into()),
        (Some(NewPayload::Binary(bytes)), _) => Payload::Bytes(bytes.clone().into()),
        (None, []) => Payload::Null,
        (None, [part]) => Payload::Bytes(part.bytes.clone()),
        (None, _) => Payload::Both,
    };
    let letter = &detail.letter;
    Event {
        seq: Seq(letter.seq),
        id: EventId(edit.event_id),
        occurred_at: detail.occurred_at.parse().ok(),
        event_type: edit.event_type.clone(),
        event_version: detail.event_version,
        kind: Cow::Owned(detail.kind.clone()),
        key: letter.key.clone(),
        aggregate_version: detail.aggregate_version,
        source: detail.source.clone(),
        subject: edit.subject.clone(),
        content_type: Cow::Owned(detail.content_type.clone()),
        payload,
        headers: Some(edit.headers.clone()).filter(|headers| headers != "{}"),
        correlation_id: detail.correlation_id.clone(),
        causation_id: detail.causation_id.clone(),
        actor: detail.actor.clone(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn changes(set: &[(&str, &str)], removed: &[&str]) -> Changes {
        Changes {
            payload: None,
            payload_file: None,
            header: set.iter().map(|(n, v)| ((*n).to_owned(), (*v).to_owned())).collect(),
            remove_header: removed.iter().map(|name| (*name).to_owned()).collect(),
            subject: None,
            event_type: None,
        }
    }

    #[test]
    fn headers_that_are_not_named_stay_as_they_are_written() {
        let before = r#"{"a": 12345678901234567890123, "b": ["x", "y"], "Nats-TTL": "1"}"#;
        let after = changes(&[("c", "z\"")], &["Nats-TTL"]).headers(before).unwrap();
        assert_eq!(after, r#"{"a":12345678901234567890123,"b":["x", "y"],"c":"z\""}"#);
        assert_eq!(changes(&[], &[]).headers(before).unwrap(), before);
        assert!(changes(&[], &["nats-ttl"]).headers(before).is_err());
    }

    #[test]
    fn headers_that_are_no_object_are_replaced() {
        assert_eq!(changes(&[], &["x"]).headers(r#"["Tenant"]"#).unwrap(), "{}");
        assert_eq!(changes(&[("a", "1")], &[]).headers("3").unwrap(), r#"{"a":"1"}"#);
    }

    #[test]
    fn a_media_type_tells_whether_it_is_json() {
        for (text, expected) in [
            ("application/json", true),
            ("Application/JSON; charset=utf-8", true),
            ("application/problem+json", true),
            ("application/octet-stream", false),
            ("text/json-like", false),
        ] {
            assert_eq!(is_json(text), expected, "{text}");
        }
    }
}
