//! Faults of a stream: the errors of requests to JetStream, each with advice for an operator.

use crate::{
    broker::{BrokerError, Cause},
    config,
};

/// Fault for which a stream is unavailable, in the terms of JetStream.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Fault {
    /// No answer came at all, although the connection exists.
    Silent,
    /// No server answers requests to JetStream.
    NoJetStream,
    /// The server forbids the request.
    Denied,
    /// The stream, or the account, has no room for another consumer.
    NoConsumer,
    /// The account, or the server, has no room for a stream of this size.
    NoStorage,
    /// The server answered with an error.
    Answered,
}

impl Fault {
    /// Advice for an operator.
    pub(super) fn hint(self) -> &'static str {
        match self {
            Self::Silent => {
                "check the server's disk and its log, and whether the cluster has a leader; after a \
                 full JetStream disk the server needs a restart"
            }
            Self::NoJetStream => {
                "enable JetStream on the server and for this account; of another JetStream domain, \
                 name it in nats.domain"
            }
            Self::Denied => "allow this user to publish to that subject of the API",
            Self::NoConsumer => {
                "raise max_consumers of the stream or of the account by one, or delete a consumer \
                 that nobody uses"
            }
            Self::NoStorage => {
                "lower stream.max_bytes, which is reserved, or raise the account's or the server's \
                 limit: `nats account info` shows it"
            }
            Self::Answered => {
                "see with `nats stream info` whether the stream exists and has a leader"
            }
        }
    }

    fn cause(self) -> Cause {
        match self {
            Self::Silent => Cause::Silent,
            Self::Denied => Cause::Denied,
            Self::NoJetStream | Self::NoConsumer | Self::NoStorage | Self::Answered => {
                Cause::Answered
            }
        }
    }
}

/// Text that names a stream, such as `stream "EVENTS"`.
pub(super) fn named(stream: &str) -> String {
    format!("stream \"{stream}\"")
}

/// Error of a stream that cannot be asked for, or read, at present.
pub(super) fn unavailable(stream: &str, fault: Fault, reason: String) -> BrokerError {
    let (log, cause, hint) = (named(stream), fault.cause(), fault.hint());
    BrokerError::Unavailable { log, reason, cause, hint }
}

/// Error of a stream that does not exist.
pub fn missing(stream: &str) -> BrokerError {
    let hint = "create it, or let postrider do so with [stream] create = true".to_owned();
    BrokerError::Missing { log: named(stream), but: "", hint }
}

/// Error of a stream that no longer exists although events were published to it.
pub fn gone(stream: &config::StreamConfig) -> BrokerError {
    let config::StreamConfig { name, subjects, .. } = stream;
    let subjects = if subjects.is_empty() { "…".to_owned() } else { subjects.join(",") };
    let hint = format!(
        "it is for a person to restore or to create anew: nats stream restore, or nats stream add \
         {name} --subjects \"{subjects}\" --discard new; the relay then publishes again what the \
         outbox has"
    );
    BrokerError::Missing { log: named(name), but: ", and events were published to it", hint }
}

/// Error of a stream that would lose events, or cannot accept them.
pub(super) fn refused(stream: &str, fault: String, hint: String) -> BrokerError {
    BrokerError::Refused { log: named(stream), fault, hint }
}
