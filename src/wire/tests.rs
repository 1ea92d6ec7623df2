//! Tests of the encoder: messages as they are on the wire, and refused events.

use std::fmt::Write as _;

use bytes::Bytes;
use proptest::prelude::*;
use uuid::Uuid;

use super::{Encoder, Limits, Refusal, SubjectTemplate};
use crate::event::{AggregateKey, Event, EventId, Payload, Seq};

fn event() -> Event {
    Event {
        seq: Seq(42),
        id: EventId(Uuid::from_u128(1)),
        occurred_at: "2026-11-21T10:00:00.5Z".parse().ok(),
        event_type: "order.placed".into(),
        event_version: 1,
        kind: "domain".into(),
        key: Some(AggregateKey::new("order", "o 1")),
        aggregate_version: Some(7),
        source: None,
        subject: None,
        content_type: "application/json".into(),
        payload: Payload::Bytes(Bytes::from_static(b"{\"n\":1e400}")),
        headers: None,
        correlation_id: Some("c-1".into()),
        causation_id: None,
        actor: Some("ann".into()),
    }
}

fn encoder(template: &str) -> Encoder {
    let limits = Limits {
        stream: "EVENTS".into(),
        subjects: vec!["events.>".into()],
        message_bytes_max: 1 << 20,
        framing_bytes: 27,
    };
    Encoder::new(SubjectTemplate::parse(template).unwrap(), "shop".into()).with_limits(limits)
}

fn refused(event: &Event) -> &'static str {
    encoder("events.{event_type}").encode(event).unwrap_err().code()
}

#[test]
fn headers_carry_the_cloudevents_attributes() {
    let mut event = event();
    event.headers = Some(r#"{"tenant":"t1","n":12345678901234567890,"tags":["a","b"]}"#.into());
    let message = encoder("events.{event_type}").encode(&event).unwrap();
    let mut lines: Vec<String> =
        message.headers.iter().map(|(name, value)| format!("{name}: {value}")).collect();
    lines.sort();
    let mut text = format!("{}\n", message.subject);
    for line in lines {
        writeln!(text, "{line}").unwrap();
    }
    insta::assert_snapshot!(text, @r"
    events.order.placed
    ce-aggregatetype: order
    ce-aggregateversion: 7
    ce-authid: ann
    ce-correlationid: c-1
    ce-datacontenttype: application/json
    ce-eventversion: 1
    ce-id: 00000000-0000-0000-0000-000000000001
    ce-kind: domain
    ce-partitionkey: order/o%201
    ce-sequence: 00000000000000000042
    ce-source: shop
    ce-specversion: 1.0
    ce-subject: o%201
    ce-time: 2026-11-21T10:00:00.5Z
    ce-type: order.placed
    n: 12345678901234567890
    tags: a
    tags: b
    tenant: t1
    ");
    assert_eq!(message.payload, "{\"n\":1e400}");
}

#[test]
fn ids_are_encoded_into_one_token() {
    let mut event = event();
    event.key = Some(AggregateKey::new("or.der", "a.b > *"));
    let message = encoder("events.{aggregate_type}.{aggregate_id}").encode(&event).unwrap();
    assert_eq!(message.subject.as_str(), "events.or%2Eder.a%2Eb%20%3E%20%2A");
}

#[test]
fn subjects_that_cannot_be_are_refused() {
    for event_type in ["a..b", ".a", "a.", "a.*", "a.>", "a b", "a\r\nb", "a\u{fffd}", ""] {
        let event = Event { event_type: event_type.into(), ..event() };
        assert_eq!(refused(&event), "invalid_subject", "{event_type:?}");
    }
    let long = Event { event_type: "a".repeat(600), ..event() };
    assert_eq!(refused(&long), "subject_too_long");
    let purge = Event { subject: Some("$JS.API.STREAM.PURGE.EVENTS".into()), ..event() };
    assert_eq!(refused(&purge), "subject_outside_prefix");
    let other = encoder("other.{event_type}").encode(&event()).unwrap_err();
    assert_eq!(other.code(), "subject_not_captured");
    let unkeyed = Event { key: None, ..event() };
    let missing = encoder("events.{aggregate_id}").encode(&unkeyed).unwrap_err();
    assert_eq!(missing, Refusal::MissingField { field: "aggregate_id" });
    for half in [AggregateKey::new("order", ""), AggregateKey::new("", "o-1")] {
        assert_eq!(refused(&Event { key: Some(half), ..event() }), "missing_field");
    }
}

#[test]
fn headers_that_cannot_be_are_refused() {
    for (headers, code) in [
        (r#"{"Nats-Rollup":"all"}"#, "reserved_header"),
        (r#"{"nats-msg-id":"x"}"#, "reserved_header"),
        (r#"{"x":"a\r\nNats-Rollup: all"}"#, "invalid_header"),
        (r#"{"a b":"x"}"#, "invalid_header"),
        (r#"{"x":{"y":1}}"#, "invalid_header"),
        (r#"{"x":null}"#, "invalid_header"),
        (r#"["x"]"#, "invalid_header"),
        (r#"{"x":"\u0000"}"#, "invalid_header"),
    ] {
        let event = Event { headers: Some(headers.into()), ..event() };
        assert_eq!(refused(&event), code, "{headers}");
    }
    let many: Vec<String> = (0..65).map(|n| format!("\"h{n}\":1")).collect();
    let event = Event { headers: Some(format!("{{{}}}", many.join(","))), ..event() };
    assert_eq!(refused(&event), "headers_too_large");
}

#[test]
fn a_payload_over_the_limit_is_refused_with_both_numbers() {
    let event = Event { payload: Payload::Oversize { bytes: 5 << 20 }, ..event() };
    let refusal = encoder("events.{event_type}").encode(&event).unwrap_err();
    assert!(refusal.to_string().contains("the broker takes at most 1048576"), "{refusal}");
    // The payload was left in the database while the limit was lower, so there are no bytes to
    // publish.
    let absent = Event { payload: Payload::Oversize { bytes: 5 }, ..event };
    assert_eq!(refused(&absent), "payload_too_large");
}

#[test]
fn two_payloads_are_refused() {
    assert_eq!(refused(&Event { payload: Payload::Both, ..event() }), "two_payloads");
}

#[test]
fn a_null_payload_is_a_tombstone() {
    let event = Event { payload: Payload::Null, ..event() };
    let message = encoder("events.{event_type}").encode(&event).unwrap();
    assert_eq!(message.headers.get("Postrider-Null"), Some("true"));
    assert!(message.payload.is_empty());
}

/// Random text in which characters with a meaning in subjects or headers are frequent.
fn odd_text(longest: usize) -> impl Strategy<Value = String> {
    let character = prop_oneof![
        12 => proptest::char::range('a', 'z'),
        3 => proptest::sample::select(vec![
            '.', '*', '>', ' ', '%', '$', '_', ':', '-', '"', '\\', '\t', '\r', '\n', '\0', '\u{1b}',
            '\u{7f}', '\u{85}', '\u{a0}', '\u{2028}', '\u{202e}', '\u{fffd}', 'ä', '漢', '\u{10ffff}',
        ]),
        1 => any::<char>(),
    ];
    proptest::collection::vec(character, 0..longest).prop_map(String::from_iter)
}

/// Random event types: some are valid tokens of a subject, some are not.
fn event_type() -> impl Strategy<Value = String> {
    prop_oneof!["[a-z]{1,9}(\\.[a-z]{1,9}){0,2}", odd_text(20)]
}

/// Random header names: similar to reserved names, similar to valid names, or any text.
fn header_name() -> impl Strategy<Value = String> {
    prop_oneof![
        "(?i)(nats-|ce-|postrider-|traceparent|tracestate|baggage|nats)[a-z-]{0,4}",
        "[A-Za-z0-9!#$%&'*+.^_`|~-]{0,130}",
        odd_text(10),
    ]
}

fn json_value() -> impl Strategy<Value = serde_json::Value> {
    let leaf = prop_oneof![
        Just(serde_json::Value::Null),
        any::<bool>().prop_map(Into::into),
        any::<i64>().prop_map(Into::into),
        any::<f64>().prop_map(Into::into),
        odd_text(20).prop_map(Into::into),
        (4_090usize..4_100).prop_map(|length| "v".repeat(length).into()),
    ];
    leaf.prop_recursive(3, 12, 4, |inner| {
        prop_oneof![
            proptest::collection::vec(inner.clone(), 0..4).prop_map(Into::into),
            proptest::collection::hash_map(odd_text(5), inner, 0..3)
                .prop_map(|map| serde_json::Value::Object(map.into_iter().collect())),
        ]
    })
}

/// Asserts what the server and the protocol demand of every message, whatever its row has.
fn assert_sendable(message: &super::Message) -> Result<(), TestCaseError> {
    let subject = message.subject.as_str();
    prop_assert!(subject.starts_with("events.") && subject.len() <= 512, "{subject:?}");
    for token in subject.split('.') {
        prop_assert!(!token.is_empty() && !token.contains(['*', '>']), "{subject:?}");
        let unseen =
            |c: char| c.is_whitespace() || c.is_control() || c == char::REPLACEMENT_CHARACTER;
        prop_assert!(!token.contains(unseen), "{subject:?}");
    }
    let mut own = 0;
    for (name, value) in message.headers.iter() {
        let known = name.starts_with("ce-") || ["Nats-Msg-Id", "Postrider-Null"].contains(&name);
        let lower = name.to_ascii_lowercase();
        let reserved = ["nats-", "ce-", "postrider-"].iter().any(|it| lower.starts_with(it));
        prop_assert!(known || !reserved, "{name:?}");
        prop_assert!((1..=128).contains(&name.len()) && name.bytes().all(|b| b.is_ascii_graphic()));
        prop_assert!(!name.contains([':', '"', '(', ')', ',', '/']), "{name:?}");
        prop_assert!(value.len() <= 4_096);
        prop_assert!(!value.contains(|c: char| c.is_control() && c != '\t'), "{value:?}");
        own += usize::from(!known);
    }
    prop_assert!(own <= 64);
    Ok(())
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2_500))]

    #[test]
    fn no_row_can_panic_and_what_is_accepted_can_be_sent(
        event_type in event_type(), subject in proptest::option::of(event_type()),
        own in any::<bool>(), id in odd_text(20), kind in odd_text(8),
        texts in (odd_text(10), proptest::option::of(odd_text(10))),
        headers in proptest::collection::hash_map(header_name(), json_value(), 0..3),
    ) {
        let subject = subject.map(|subject| if own { format!("events.{subject}") } else { subject });
        let headers = serde_json::Value::Object(headers.into_iter().collect()).to_string();
        let (actor, source) = texts;
        let event = Event {
            event_type, subject, kind: kind.into(), actor: Some(actor), source,
            headers: Some(headers), key: Some(AggregateKey::new("t", &id)), ..event()
        };
        for template in
            ["events.{event_type}", "events.{aggregate_id}.{event_type}", "events.{kind}.{source}"]
        {
            match encoder(template).encode(&event) {
                Ok(message) => assert_sendable(&message)?,
                Err(refusal) => {
                    let text = refusal.to_string();
                    let printable = !text.contains(|c: char| c.is_control() || c == '\u{202e}');
                    prop_assert!(printable, "{text:?}");
                }
            }
        }
    }

    #[test]
    fn no_headers_column_can_panic(json in prop_oneof![odd_text(60), "[\\[{\"a:1,}\\]]{0,30}"]) {
        let event = Event { headers: Some(json), ..event() };
        if let Ok(message) = encoder("events.{event_type}").encode(&event) {
            assert_sendable(&message)?;
        }
    }

    #[test]
    fn no_template_can_panic_and_what_is_accepted_keeps_its_prefix(
        template in prop_oneof![
            odd_text(20),
            "events[.{}a-z_*>$ ]{0,20}",
            "events\\.[a-z.]{0,4}\\{(event_type|kind|source|aggregate_id|type)\\}[a-z.]{0,4}",
        ],
        event_type in odd_text(10), id in odd_text(10),
    ) {
        if let Ok(parsed) = SubjectTemplate::parse(&template) {
            prop_assert!(!parsed.prefix().is_empty() && !parsed.prefix().starts_with('$'));
            let limits = Limits {
                stream: "EVENTS".into(), subjects: vec![">".into()], message_bytes_max: 1 << 20, framing_bytes: 27,
            };
            let prefix = parsed.prefix().to_owned();
            let encoder = Encoder::new(parsed, "shop".into()).with_limits(limits);
            let event = Event { event_type, key: Some(AggregateKey::new("t", &id)), ..event() };
            if let Ok(message) = encoder.encode(&event) {
                prop_assert!(message.subject.starts_with(&prefix));
                let empty = message.subject.split('.').any(str::is_empty);
                prop_assert!(!empty && !message.subject.contains(['*', '>', ' ', '\r', '\n']));
            }
        }
    }
}
