//! What an event looks like on the wire, and what is refused before it gets there.

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
    };
    Encoder::new(SubjectTemplate::parse(template).unwrap(), "shop".into(), limits)
}

fn refused(event: &Event) -> &'static str {
    encoder("events.{event_type}").encode(event).unwrap_err().code()
}

#[test]
fn headers_carry_the_cloudevents_attributes() {
    let mut event = event();
    event.headers = Some(r#"{"tenant":"t1","n":12345678901234567890,"tags":["a","b"]}"#.into());
    let message = encoder("events.{event_type}").encode(&event).unwrap();
    let mut lines: Vec<String> = message
        .headers
        .iter()
        .flat_map(|(name, values)| values.iter().map(move |value| format!("{name}: {value}")))
        .collect();
    lines.sort();
    let mut text = format!("{}\n", message.subject);
    for line in lines {
        writeln!(text, "{line}").unwrap();
    }
    insta::assert_snapshot!(text, @r"
    events.order.placed
    Nats-Msg-Id: 00000000-0000-0000-0000-000000000001
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
    // Left in the database under a lower limit than now: there are no bytes to publish.
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
    assert_eq!(
        message.headers.get("Postrider-Null").map(async_nats::HeaderValue::as_str),
        Some("true")
    );
    assert!(message.payload.is_empty());
}

proptest! {
    #[test]
    fn no_text_can_panic_or_leave_the_prefix(
        event_type in ".{0,40}", id in ".{0,40}", subject in proptest::option::of(".{0,40}"),
        header in ".{0,12}", value in ".{0,40}", actor in ".{0,20}",
    ) {
        let headers = serde_json::json!({ header: value }).to_string();
        let event = Event {
            event_type, subject, actor: Some(actor), headers: Some(headers),
            key: Some(AggregateKey::new("t", &id)), ..event()
        };
        for template in ["events.{event_type}", "events.{aggregate_id}.{event_type}"] {
            if let Ok(message) = encoder(template).encode(&event) {
                prop_assert!(message.subject.starts_with("events."));
                prop_assert!(!message.subject.contains(['*', '>', ' ', '\r', '\n']));
                let mut values = message.headers.iter().flat_map(|(_, values)| values);
                let clean = values.all(|value| !value.as_str().contains(['\r', '\n']));
                prop_assert!(clean);
            }
        }
    }
}
