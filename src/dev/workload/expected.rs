//! The message that is expected for a row, worked out without the encoder of the relay.

use uuid::Uuid;

use super::{Options, plan::PlannedRow};
use crate::dev::checker::{Digest, Row};

/// The placeholder for a header whose value the database chooses. Only its shape can be checked.
pub(in crate::dev) const ANY_TIME: &str = "<an RFC 3339 time>";
/// The placeholder for the header with the row's number, which the database chooses as well.
pub(in crate::dev) const ANY_SEQUENCE: &str = "<20 digits>";

/// The aggregate type of all keyed events.
pub(super) const AGGREGATE_TYPE: &str = "order";

/// The aggregate id of a key. Ids differ between seeds, and every tenth has characters that need
/// encoding.
pub(super) fn aggregate_id(options: &Options, key: u32) -> String {
    let seed = options.seed;
    if key % 10 == 9 { format!("{seed:x} {key}/ü.%") } else { format!("{seed:x}-{key}") }
}

/// The row of the ledger: what was inserted, and digests of the message that has to be stored for
/// it.
pub(super) fn row(planned: &PlannedRow, key_seq: u64, correlation: Uuid, options: &Options) -> Row {
    let id = planned.id.to_string();
    let (version, correlation) = (planned.event_version.to_string(), correlation.to_string());
    let source = encoded(&options.source);
    let mut headers: Vec<(&str, String)> = vec![
        ("Nats-Msg-Id", id.clone()),
        ("ce-id", id),
        ("ce-specversion", "1.0".to_owned()),
        ("ce-source", source),
        ("ce-type", planned.event_type.to_owned()),
        ("ce-time", ANY_TIME.to_owned()),
        ("ce-datacontenttype", "application/json".to_owned()),
        ("ce-kind", "domain".to_owned()),
        ("ce-eventversion", version),
        ("ce-sequence", ANY_SEQUENCE.to_owned()),
        ("ce-correlationid", correlation),
    ];
    let mut key_digest = None;
    if let Some(key) = planned.key {
        let aggregate_id = encoded(&aggregate_id(options, key));
        let key_text = format!("{AGGREGATE_TYPE}/{aggregate_id}");
        key_digest = Some(Digest::of(&key_text));
        headers.push(("ce-subject", aggregate_id));
        headers.push(("ce-aggregatetype", AGGREGATE_TYPE.to_owned()));
        headers.push(("ce-aggregateversion", key_seq.to_string()));
        headers.push(("ce-partitionkey", key_text));
    }
    if let Some(actor) = planned.actor {
        headers.push(("ce-authid", encoded(actor)));
    }
    if planned.payload.is_none() {
        headers.push(("Postrider-Null", "true".to_owned()));
    }
    headers.extend(planned.headers.iter().cloned());
    Row {
        id: planned.id,
        key: key_digest,
        key_seq,
        subject: Digest::of(format!("{}{}", options.subject_prefix, planned.event_type)),
        payload: Digest::of(planned.payload.as_deref().unwrap_or_default()),
        headers: Digest::of_headers(headers.iter().map(|(name, value)| (*name, value.as_str()))),
    }
}

/// The percent-encoding of header values in the NATS binding of CloudEvents: space, double quote,
/// percent, and everything outside U+0021 to U+007E.
fn encoded(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for character in text.chars() {
        if ('\u{21}'..='\u{7e}').contains(&character) && character != '"' && character != '%' {
            out.push(character);
        } else {
            let mut buffer = [0; 4];
            let bytes = character.encode_utf8(&mut buffer).bytes();
            out.extend(bytes.map(|byte| format!("%{byte:02X}")));
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_are_encoded_as_the_binding_says() {
        // The source is the example of the CloudEvents specification.
        assert_eq!(encoded("Euro € 😀"), "Euro%20%E2%82%AC%20%F0%9F%98%80");
        assert_eq!(encoded("a\"b%c/d"), "a%22b%25c/d");
    }
}
