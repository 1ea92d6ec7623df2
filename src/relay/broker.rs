//! The broker as the relay sees it: connected, its stream verified, and what it said last.

use std::time::{Duration, Instant};

use async_nats::Client;
use tracing::{info, warn};

use super::slot::Slot;
use crate::{
    config,
    delivery::{Backoff, Closure, ClosureKind},
    nats::{self, Facts, Publisher, StreamError, Warning},
    wire::{Encoder, Limits, SubjectTemplate},
};

/// The waits between looks at a stream that cannot be used.
const VERIFY: Backoff =
    Backoff { first: Duration::from_millis(250), longest: Duration::from_secs(5) };

/// The publisher, and whether the stream behind it may be used.
pub(super) struct Broker {
    pub(super) publisher: Publisher,
    pub(super) encoder: Encoder,
    pub(super) verifying: Slot<Result<Facts, StreamError>>,
    stream: config::Stream,
    template: SubjectTemplate,
    ack_timeout: Duration,
    state: State,
    failures: u32,
    facts: Option<Facts>,
    warned: Vec<Warning>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    Disconnected,
    /// Connected, and the stream is to be looked at then.
    Unverified {
        at: Instant,
    },
    Verified,
}

/// What a look at the stream means for the gate.
pub(super) enum Verified {
    /// It may be used.
    Sound,
    /// Not now.
    Closed(Closure),
    /// Not at all, and it never was since we started: a person has to act before this can run.
    Unusable(StreamError),
}

impl Broker {
    /// A broker that is not connected yet.
    pub(super) fn new(
        publisher: Publisher,
        stream: config::Stream,
        template: SubjectTemplate,
        source: String,
        ack_timeout: Duration,
    ) -> Self {
        // Nothing is encoded before the stream was verified and has told its limits.
        let limits =
            Limits { stream: stream.name.clone(), subjects: Vec::new(), message_bytes_max: 0 };
        Self {
            publisher,
            encoder: Encoder::new(template.clone(), source, limits),
            verifying: Slot::new(),
            stream,
            template,
            ack_timeout,
            state: State::Disconnected,
            failures: 0,
            facts: None,
            warned: Vec::new(),
        }
    }

    /// Whether messages may go.
    pub(super) fn is_ready(&self) -> bool {
        self.state == State::Verified && self.publisher.is_connected()
    }

    /// Whether there is a connection.
    pub(super) fn is_connected(&self) -> bool {
        self.state != State::Disconnected
    }

    /// What was learned from the stream the last time it was sound.
    pub(super) fn facts(&self) -> Option<&Facts> {
        self.facts.as_ref()
    }

    /// When the stream is looked at next.
    pub(super) fn next_due(&self) -> Option<Instant> {
        match self.state {
            State::Unverified { at } if self.verifying.is_idle() => Some(at),
            State::Unverified { .. } | State::Disconnected | State::Verified => None,
        }
    }

    /// There is a new connection: the stream is looked at before anything goes over it.
    pub(super) fn connected(&mut self, now: Instant) {
        self.failures = 0;
        self.state = State::Unverified { at: now };
    }

    /// The connection is gone.
    pub(super) fn disconnected(&mut self) {
        self.state = State::Disconnected;
    }

    /// Something about the stream is in doubt: it is looked at again.
    pub(super) fn doubt(&mut self, now: Instant) {
        if self.state == State::Verified {
            self.failures = 0;
            self.state = State::Unverified { at: now };
        }
    }

    /// Looks at the stream when it is time to.
    pub(super) fn verify(&mut self, now: Instant) {
        if self.next_due().is_none_or(|at| at > now) {
            return;
        }
        let client: Client = self.publisher.client().clone();
        let (stream, template) = (self.stream.clone(), self.template.clone());
        let ack_timeout = self.ack_timeout;
        self.verifying
            .start(async move { nats::verify(&client, &stream, &template, ack_timeout).await });
    }

    /// Takes in what the look gave.
    pub(super) fn verified(
        &mut self,
        result: Result<Facts, StreamError>,
        now: Instant,
    ) -> Verified {
        let error = match result {
            Ok(facts) => {
                self.sound(facts);
                return Verified::Sound;
            }
            Err(error) => error,
        };
        self.failures += 1;
        if self.state != State::Disconnected {
            self.state = State::Unverified { at: now + VERIFY.after(self.failures) };
        }
        let kind = match &error {
            StreamError::Refused { .. } if self.facts.is_none() => {
                return Verified::Unusable(error);
            }
            StreamError::Missing { .. } | StreamError::Refused { .. } => ClosureKind::Misconfigured,
            StreamError::Unavailable { silent: true, .. } if self.is_connected() => {
                self.publisher.reconnect();
                ClosureKind::BrokerStalled
            }
            StreamError::Unavailable { .. } => ClosureKind::StreamUnavailable,
        };
        Verified::Closed(Closure { kind, text: format!("{error}; {}", error.hint()) })
    }

    fn sound(&mut self, facts: Facts) {
        if self.state != State::Disconnected {
            self.state = State::Verified;
        }
        self.failures = 0;
        self.encoder.set_limits(facts.limits.clone());
        if self.warned != facts.warnings {
            for Warning { text, hint } in &facts.warnings {
                warn!(stream = %self.stream.name, hint, "the stream {text}");
            }
            self.warned.clone_from(&facts.warnings);
        }
        if self.facts.is_none() {
            info!(stream = %self.stream.name, last_seq = facts.last_seq, "stream verified");
        }
        self.facts = Some(facts);
    }
}
