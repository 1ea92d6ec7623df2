//! Turns an answer of JetStream to a single message into an outcome.

use serde::Deserialize;

use super::fault::Fault;
use crate::{
    broker::SUBJECT_FULL,
    delivery::{Attempt, Closure, ClosureKind, Outcome, Rejection},
};

/// PubAck, or an error in its place.
#[derive(Debug, Deserialize)]
pub(super) struct PubAck<'a> {
    #[serde(borrow, default)]
    pub(super) stream: Option<&'a str>,
    #[serde(default)]
    pub(super) seq: u64,
    #[serde(default)]
    duplicate: bool,
    /// The JetStream domain of the server that answers.
    #[serde(borrow, default)]
    pub(super) domain: Option<&'a str>,
    #[serde(default)]
    pub(super) error: Option<ApiError>,
    /// Id of the batch that is acknowledged; `None` for a single message.
    #[serde(borrow, default)]
    pub(super) batch: Option<&'a str>,
    #[serde(default)]
    pub(super) count: u64,
}

/// Error in the words of the JetStream API.
#[derive(Debug, Deserialize)]
pub(super) struct ApiError {
    #[serde(default)]
    code: u16,
    #[serde(default)]
    pub(super) err_code: u64,
    #[serde(default)]
    pub(super) description: String,
}

/// Answer to a publish.
#[derive(Debug, Clone, Copy)]
pub(super) enum Answer<'a> {
    /// The server says that nobody listens on the subject.
    NoResponders,
    /// A responder answered with these bytes.
    Payload(&'a [u8]),
}

/// Stream that has to answer a publish. Two domains may each have a stream of this name.
#[derive(Debug, Clone, Copy)]
pub struct ExpectedStream<'a> {
    /// The stream's name.
    pub stream: &'a str,
    /// The JetStream domain of its server.
    pub domain: Option<&'a str>,
}

impl ExpectedStream<'_> {
    /// Whether an answer that names this stream and JetStream domain comes from the expected
    /// stream.
    pub fn is(self, stream: &str, domain: Option<&str>) -> bool {
        self.stream == stream && self.domain == domain
    }
}

/// Text that names a stream and its JetStream domain for a person.
fn named(stream: &str, domain: Option<&str>) -> String {
    match domain {
        Some(domain) => format!("stream \"{stream}\" of JetStream domain \"{domain}\""),
        None => format!("stream \"{stream}\""),
    }
}

/// Outcome of a publish, read from its answer. Only the expected stream may store the message.
pub(super) fn classify_answer(answer: Answer<'_>, wanted: ExpectedStream<'_>) -> Outcome {
    let ExpectedStream { stream, domain } = wanted;
    let Answer::Payload(payload) = answer else {
        // The relay has checked the subject against the stream before, so the subject is not why
        // nobody answers.
        return unavailable(format!(
            "no stream answers for the subject (stream \"{stream}\" missing or leaderless)"
        ));
    };
    match serde_json::from_slice::<PubAck<'_>>(payload) {
        Ok(PubAck { error: Some(error), .. }) => classify_error(&error),
        // Only an acknowledgement of the expected stream means that the message is published.
        Ok(PubAck { stream: Some(name), domain, seq, duplicate, error: None, .. })
            if wanted.is(name, domain) =>
        {
            Outcome::Acked { stream_seq: seq, duplicate }
        }
        Ok(PubAck { stream: Some(other), domain: others, .. }) => misconfigured(
            format!(
                "{} took a message that was meant for {}",
                named(other, others),
                named(stream, domain)
            ),
            "find who listens on that subject: two streams, perhaps of two JetStream domains, may \
             not take one event; nats.domain names the domain of ours",
        ),
        Ok(PubAck { stream: None, .. }) | Err(_) => misconfigured(
            "something other than JetStream answers for the subject".to_owned(),
            "find the service that replies on that subject, and give it or the route another one",
        ),
    }
}

/// Outcome of a publish that JetStream answered with this error.
pub(super) fn classify_error(error: &ApiError) -> Outcome {
    let text = format!("{} (JetStream code {})", error.description, error.err_code);
    match error.err_code {
        // A single subject is full (`discard_new_per_subject`). Only the events of this subject
        // have to wait.
        10077 if is_full_subject(&error.description) => {
            busy(SUBJECT_FULL, text, Attempt::CountsAsWait)
        }
        // The message is larger than the stream's storage accepts, however much space is free.
        10077 if is_too_large(&error.description) => rejected("payload_too_large", text),
        10054 => rejected("payload_too_large", text),
        10097 => rejected("headers_too_large", text),
        10165 | 10189..=10192 => rejected("rejected", text),
        // The stream is full, or has no leader, or the server lacks resources: such a state may
        // pass.
        10002 | 10023 | 10047 | 10077 => full(text),
        10039 | 10076 => Outcome::Unavailable(Closure::with_hint(
            ClosureKind::StreamUnavailable,
            text,
            Fault::NoJetStream.hint(),
        )),
        10118 | 10194 => unavailable(text),
        // The stream is missing, sealed or lacks a feature: a person has to act.
        10059 | 10060 | 10109 | 10166 | 10174 | 10188 | 10205 => {
            Outcome::Unavailable(Closure::new(ClosureKind::Misconfigured, text))
        }
        // An earlier publish of the same message is in progress, which says nothing against the
        // message.
        10158 => busy("busy", text, Attempt::IsFree),
        10163 | 10164 | 10167 | 10210 | 10211 => busy("busy", text, Attempt::Counts),
        // JetStream as a whole is not available, so the answer is no judgement about this message.
        _ if error.code == 503 => unavailable(text),
        // An answer without a known meaning never makes a dead letter.
        _ => busy("unknown_answer", text, Attempt::IsFree),
    }
}

fn is_full_subject(description: &str) -> bool {
    description.to_ascii_lowercase().contains("messages per subject")
}

fn is_too_large(description: &str) -> bool {
    let description = description.to_ascii_lowercase();
    description.contains("too large") || description.contains("maximum message size")
}

fn rejected(code: &'static str, text: String) -> Outcome {
    Outcome::Rejected(Rejection { code, text })
}

fn busy(code: &'static str, text: String, attempt: Attempt) -> Outcome {
    Outcome::Busy { reason: Rejection { code, text }, attempt }
}

fn unavailable(text: String) -> Outcome {
    let hint = "events wait and nothing is lost; see with `nats stream info` whether the stream exists \
                and has a leader";
    Outcome::Unavailable(Closure::with_hint(ClosureKind::StreamUnavailable, text, hint))
}

fn misconfigured(text: String, hint: &'static str) -> Outcome {
    Outcome::Unavailable(Closure::with_hint(ClosureKind::Misconfigured, text, hint))
}

fn full(text: String) -> Outcome {
    let hint = "the stream, the account or the server has no room: compare `nats stream info` and \
                `nats account info` with their limits, then raise max_msgs or max_bytes, or purge";
    Outcome::Unavailable(Closure::with_hint(ClosureKind::StreamUnavailable, text, hint))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const EVENTS: ExpectedStream<'_> = ExpectedStream { stream: "EVENTS", domain: None };

    fn answer(json: &str) -> Outcome {
        classify_answer(Answer::Payload(json.as_bytes()), EVENTS)
    }

    fn error(code: u64, description: &str) -> Outcome {
        answer(&format!(
            r#"{{"error":{{"code":400,"err_code":{code},"description":"{description}"}},"stream":"EVENTS","seq":0}}"#
        ))
    }

    #[test]
    fn only_an_ack_of_our_stream_counts() {
        let acked = Outcome::Acked { stream_seq: 7, duplicate: false };
        assert_eq!(answer(r#"{"stream":"EVENTS","seq":7}"#), acked);
        let duplicate = Outcome::Acked { stream_seq: 7, duplicate: true };
        assert_eq!(answer(r#"{"stream":"EVENTS","seq":7,"duplicate":true}"#), duplicate);
        for other in [r#"{"stream":"OTHER","seq":7}"#, "{}", "hello", ""] {
            let outcome = answer(other);
            let Outcome::Unavailable(closure) = outcome else { panic!("{other}: {outcome:?}") };
            assert_eq!(closure.kind, ClosureKind::Misconfigured);
        }
    }

    /// Regression: acknowledgements of a stream with the same name in another domain were taken for
    /// ours.
    #[test]
    fn only_an_ack_of_our_domain_counts() {
        let hub = ExpectedStream { stream: "EVENTS", domain: Some("hub") };
        let of = |domain: &str| format!(r#"{{"stream":"EVENTS","seq":7{domain}}}"#);
        let (ours, other) = (of(r#","domain":"hub""#), of(r#","domain":"leaf""#));
        for (wanted, json, is_ours) in [
            (hub, &ours, true),
            (hub, &other, false),
            (hub, &of(""), false),
            (EVENTS, &other, false),
        ] {
            let outcome = classify_answer(Answer::Payload(json.as_bytes()), wanted);
            assert_eq!(matches!(outcome, Outcome::Acked { .. }), is_ours, "{json}: {outcome:?}");
        }
    }

    #[test]
    fn a_full_subject_concerns_its_own_events_only_and_never_makes_a_dead_letter() {
        let outcome = error(10077, "maximum messages per subject exceeded");
        let Outcome::Busy { reason, attempt } = outcome else { panic!("{outcome:?}") };
        assert_eq!((reason.code, attempt), ("subject_full", Attempt::CountsAsWait));
    }

    #[test]
    fn an_outage_is_no_rejection() {
        for code in [10077, 10023, 10118, 10047] {
            let outcome = error(code, "maximum messages exceeded");
            assert!(matches!(outcome, Outcome::Unavailable(_)), "{code}: {outcome:?}");
        }
        let outcome = classify_answer(Answer::NoResponders, EVENTS);
        assert!(matches!(outcome, Outcome::Unavailable(_)));
    }

    #[test]
    fn what_can_never_be_stored_is_rejected() {
        for (code, text) in [(10054, "message size exceeds"), (10077, "message too large")] {
            assert!(matches!(error(code, text), Outcome::Rejected(_)), "{code}");
        }
    }

    proptest! {
        #[test]
        fn an_unknown_code_is_never_a_rejection(code in 20_000u64..u64::MAX, text in "[a-z ]{0,30}") {
            let outcome = error(code, &text);
            let is_free = matches!(outcome, Outcome::Busy { attempt: Attempt::IsFree, .. });
            prop_assert!(is_free);
        }
    }
}
