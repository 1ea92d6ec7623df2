//! The one place where an answer of JetStream becomes an outcome.

use serde::Deserialize;

use crate::delivery::{Attempt, Closure, ClosureKind, Outcome, Rejection};

/// What a PubAck holds, or an error in its place.
#[derive(Debug, Deserialize)]
pub(super) struct PubAck<'a> {
    #[serde(borrow, default)]
    pub(super) stream: Option<&'a str>,
    #[serde(default)]
    pub(super) seq: u64,
    #[serde(default)]
    duplicate: bool,
    #[serde(default)]
    pub(super) error: Option<ApiError>,
    /// The batch that it acknowledges, and how many messages that had.
    #[serde(borrow, default)]
    pub(super) batch: Option<&'a str>,
    #[serde(default)]
    pub(super) count: u64,
}

/// An error as the JetStream API words it.
#[derive(Debug, Deserialize)]
pub(super) struct ApiError {
    #[serde(default)]
    code: u16,
    #[serde(default)]
    pub(super) err_code: u64,
    #[serde(default)]
    pub(super) description: String,
}

/// What came back for a publish.
#[derive(Debug, Clone, Copy)]
pub(super) enum Answer<'a> {
    /// The server says that nobody listens on the subject.
    NoResponders,
    /// Somebody answered with these bytes.
    Payload(&'a [u8]),
}

/// What an answer to a publish means. `stream` is the one that has to have taken it.
pub(super) fn classify_answer(answer: Answer<'_>, stream: &str) -> Outcome {
    let Answer::Payload(payload) = answer else {
        // Subjects were validated against the stream before, so this is no malformed one.
        return unavailable(
            ClosureKind::StreamUnavailable,
            format!(
                "no stream answers for the subject (stream \"{stream}\" missing or leaderless)"
            ),
        );
    };
    match serde_json::from_slice::<PubAck<'_>>(payload) {
        Ok(PubAck { error: Some(error), .. }) => classify_error(&error),
        // Invariant 2: published means acknowledged by our stream.
        Ok(PubAck { stream: Some(name), seq, duplicate, error: None, .. }) if name == stream => {
            Outcome::Acked { stream_seq: seq, duplicate }
        }
        Ok(PubAck { stream: Some(other), .. }) => unavailable(
            ClosureKind::Misconfigured,
            format!("stream \"{other}\" took a message that was meant for \"{stream}\""),
        ),
        Ok(PubAck { stream: None, .. }) | Err(_) => unavailable(
            ClosureKind::Misconfigured,
            "something other than JetStream answers for the subject".to_owned(),
        ),
    }
}

/// What an API error means for the message and for the stream.
pub(super) fn classify_error(error: &ApiError) -> Outcome {
    let text = format!("{} (JetStream code {})", error.description, error.err_code);
    match error.err_code {
        // The message is larger than the store takes, whatever room there is.
        10077 if is_too_large(&error.description) => rejected("payload_too_large", text),
        10054 => rejected("payload_too_large", text),
        10097 => rejected("headers_too_large", text),
        10165 | 10189..=10192 => rejected("rejected", text),
        // Stream full, no space, no leader, offline, out of resources: it may pass.
        10002 | 10023 | 10039 | 10047 | 10076 | 10077 | 10118 | 10194 => {
            unavailable(ClosureKind::StreamUnavailable, text)
        }
        // Not found, not enabled, sealed, features that the stream lacks: somebody must act.
        10059 | 10060 | 10109 | 10166 | 10174 | 10188 | 10205 => {
            unavailable(ClosureKind::Misconfigured, text)
        }
        // Asked for patience with this message.
        // Our own earlier publish of it is under way, which says nothing against the message.
        10158 => busy("busy", text, Attempt::IsFree),
        10163 | 10164 | 10167 | 10210 | 10211 => busy("busy", text, Attempt::Counts),
        // JetStream as a whole is not available: no judgement about this message.
        _ if error.code == 503 => unavailable(ClosureKind::StreamUnavailable, text),
        // Never a dead letter for what we do not understand.
        _ => busy("unknown_answer", text, Attempt::IsFree),
    }
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

fn unavailable(kind: ClosureKind, text: String) -> Outcome {
    Outcome::Unavailable(Closure { kind, text })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn answer(json: &str) -> Outcome {
        classify_answer(Answer::Payload(json.as_bytes()), "EVENTS")
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

    #[test]
    fn an_outage_is_no_rejection() {
        for code in [10077, 10023, 10118, 10047] {
            let outcome = error(code, "maximum messages exceeded");
            assert!(matches!(outcome, Outcome::Unavailable(_)), "{code}: {outcome:?}");
        }
        let outcome = classify_answer(Answer::NoResponders, "EVENTS");
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
            let patient = matches!(outcome, Outcome::Busy { attempt: Attempt::IsFree, .. });
            prop_assert!(patient);
        }
    }
}
