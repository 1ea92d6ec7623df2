//! The broker as the relay sees it: connected, its stream verified and looked into, and what it said
//! last.

use std::time::{Duration, Instant};

use async_nats::Client;
use tracing::{debug, info, warn};

use super::{
    duplicate::{Duplicates, Gone},
    slot::Slot,
};
use crate::{
    config,
    delivery::{Backoff, Closure, ClosureKind, StreamMark, Ticket},
    event::Event,
    nats::{self, Copies, Facts, Keeps, LookedUp, Publisher, StreamError, Warning},
    wire::{Encoder, Limits, SubjectTemplate},
};

/// The waits between looks at a stream that cannot be used.
const VERIFY: Backoff =
    Backoff { first: Duration::from_millis(250), longest: Duration::from_secs(5) };

/// How often a sound stream is looked at again: whether it still is, and is the one that it was.
const VERIFY_AGAIN: Duration = Duration::from_mins(1);

/// How long a stream has to stand below what it acknowledged before that counts as lost.
const BEHIND_MAX: Duration = Duration::from_secs(1);

/// The same in a cluster: a new leader may not have caught up with itself, and an old one that is cut
/// off may answer for a while.
const BEHIND_MAX_CLUSTERED: Duration = Duration::from_secs(15);

/// How often it is looked at meanwhile.
const BEHIND_LOOK: Duration = Duration::from_millis(500);

/// The publisher, and whether the stream behind it may be used.
pub(super) struct Broker {
    pub(super) publisher: Publisher,
    pub(super) encoder: Encoder,
    pub(super) verifying: Slot<Result<Seen, StreamError>>,
    pub(super) looking: Slot<Result<LookedUp, StreamError>>,
    stream: config::Stream,
    template: SubjectTemplate,
    ack_timeout: Duration,
    state: State,
    failures: u32,
    facts: Option<Facts>,
    warned: Vec<Warning>,
    pub(super) duplicates: Duplicates,
    /// When the stream that we published to was created; empty before the first.
    created: String,
    /// From where the stream is to be looked into before anything may go.
    look_above: Option<u64>,
    look_at: Option<Instant>,
    /// Since when the stream stands below what it acknowledged.
    behind_since: Option<Instant>,
}

/// What a look at the stream gave.
pub(super) struct Seen {
    facts: Facts,
    /// The highest sequence that we knew of when it began.
    acked: u64,
    /// Under the last sequence that we know of there is another message.
    is_rewritten: bool,
}

/// A stream that is not what it was.
#[derive(Debug, Clone)]
pub(super) struct Regression {
    /// When the stream was created that is there now.
    pub(super) created: String,
    /// Its last sequence: what we published above is gone.
    pub(super) last_seq: u64,
    /// What happened, for people.
    pub(super) text: String,
    /// Whether somebody else wrote where our messages were: then it is not known what is left of them.
    pub(super) is_rewritten: bool,
    copies: Copies,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    Disconnected,
    /// Connected, and the stream is to be looked at then.
    Unverified {
        at: Instant,
    },
    Verified {
        again_at: Instant,
    },
}

/// What a look at the stream means for the gate.
pub(super) enum Verified {
    /// It may be used.
    Sound,
    /// Not now.
    Closed(Closure),
    /// It has lost what it had acknowledged.
    Regressed(Regression),
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
            looking: Slot::new(),
            stream,
            template,
            ack_timeout,
            state: State::Disconnected,
            failures: 0,
            facts: None,
            warned: Vec::new(),
            duplicates: Duplicates::default(),
            created: String::new(),
            look_above: None,
            look_at: None,
            behind_since: None,
        }
    }

    /// A new holding begins: it knows of a stream created then (empty: of none), and what an earlier one
    /// may have sent is above that sequence.
    pub(super) fn begin(&mut self, created: String, look_above: Option<u64>, now: Instant) {
        self.created = created;
        self.publisher.forget();
        self.verifying.clear();
        self.looking.clear();
        self.duplicates.forget();
        self.look_above = look_above;
        self.look_at = None;
        self.behind_since = None;
        self.doubt(now);
    }

    /// The stream says that it holds this event, under a sequence, and we do not know since when. Looks
    /// whether it does.
    pub(super) fn check(&mut self, ticket: Ticket, event: &Event, stream_seq: u64) {
        match self.encoder.encode(event).ok().zip(self.publisher.client().cloned()) {
            Some((message, client)) => {
                let stream = self.stream.name.clone();
                let keeps = self.facts.as_ref().map(|facts| facts.keeps);
                let is_wanted = ticket.is_letter() && keeps == Some(Keeps::UntilItsLimits);
                let gone = if is_wanted { Gone::IsWanted } else { Gone::WasThere };
                self.duplicates.check(ticket, message, (client, stream, stream_seq), gone);
            }
            // The limits changed since: it is refused when it goes again, unless the stream has it. Or
            // there is no connection any more.
            None => self.duplicates.unconfirmed(ticket),
        }
    }

    /// Whether messages may go.
    pub(super) fn is_ready(&self) -> bool {
        self.is_verified() && self.look_above.is_none()
    }

    /// Whether the outbox may be read: its rows are compared with what the stream holds.
    pub(super) fn is_looked_into(&self) -> bool {
        self.look_above.is_none()
    }

    fn is_verified(&self) -> bool {
        matches!(self.state, State::Verified { .. })
    }

    /// When the stream that we publish to was created.
    pub(super) fn created(&self) -> &str {
        &self.created
    }

    /// Whether there is a connection.
    pub(super) fn is_connected(&self) -> bool {
        self.state != State::Disconnected
    }

    /// What was learned from the stream the last time it was sound.
    pub(super) fn facts(&self) -> Option<&Facts> {
        self.facts.as_ref()
    }

    /// When the stream is looked at, or into, next.
    pub(super) fn next_due(&self) -> Option<Instant> {
        [self.verify_due(), self.look_due()].into_iter().flatten().min()
    }

    fn verify_due(&self) -> Option<Instant> {
        match self.state {
            State::Unverified { at } | State::Verified { again_at: at }
                if self.verifying.is_idle() =>
            {
                Some(at)
            }
            State::Unverified { .. } | State::Disconnected | State::Verified { .. } => None,
        }
    }

    fn look_due(&self) -> Option<Instant> {
        let wanted = self.is_verified() && self.look_above.is_some() && self.looking.is_idle();
        self.look_at.filter(|_| wanted)
    }

    /// Something may be in the stream, and it is uncertain whether: nothing goes before a look.
    pub(super) fn want_look(&mut self, above: u64, now: Instant) {
        self.look_above = Some(self.look_above.map_or(above, |before| before.min(above)));
        self.look_at.get_or_insert(now);
    }

    /// Looks into the stream when it is wanted, and time to.
    pub(super) fn look(&mut self, now: Instant) {
        if self.look_due().is_none_or(|at| at > now) {
            return;
        }
        let Some(above) = self.look_above else { return };
        let Some(client) = self.publisher.client().cloned() else { return };
        let stream = self.stream.name.clone();
        self.looking.start(async move { nats::look_up(&client, &stream, above).await });
    }

    /// Takes in what a look into the stream gave; the text of a failure.
    pub(super) fn looked(
        &mut self,
        result: Result<LookedUp, StreamError>,
        now: Instant,
    ) -> Result<LookedUp, Closure> {
        match result {
            Ok(looked) => {
                self.look_above = None;
                self.look_at = None;
                self.failures = 0;
                info!(
                    messages = looked.messages,
                    ours = looked.found.len(),
                    last_seq = looked.last_seq,
                    "looked into the stream for what may have been sent before"
                );
                Ok(looked)
            }
            Err(error) => {
                self.failures += 1;
                self.look_at = Some(now + VERIFY.after(self.failures));
                let text = format!(
                    "{error}; this user needs $JS.API.CONSUMER.CREATE, CONSUMER.MSG.NEXT and \
                     CONSUMER.DELETE of the stream to look for what it holds"
                );
                Err(Closure { kind: ClosureKind::StreamUnavailable, text })
            }
        }
    }

    /// There is a new connection: the stream is looked at before anything goes over it.
    pub(super) fn connected(&mut self, now: Instant) {
        self.failures = 0;
        self.behind_since = None;
        self.state = State::Unverified { at: now };
    }

    /// Gives the connection up, with what waits in the client's queue.
    pub(super) fn abandon_connection(&mut self) {
        self.publisher.abandon_connection();
        self.disconnected();
    }

    /// The connection is gone.
    pub(super) fn disconnected(&mut self) {
        self.state = State::Disconnected;
        self.verifying.clear();
        self.looking.clear();
    }

    /// Something about the stream is in doubt: it is looked at again.
    pub(super) fn doubt(&mut self, now: Instant) {
        if self.is_verified() {
            self.failures = 0;
            self.state = State::Unverified { at: now };
        }
    }

    /// Looks at the stream when it is time to. `mark` is what we know of it.
    pub(super) fn verify(&mut self, mark: StreamMark, now: Instant) {
        if self.verify_due().is_none_or(|at| at > now) {
            return;
        }
        let Some(client) = self.publisher.client().cloned() else { return };
        let (mut stream, template) = (self.stream.clone(), self.template.clone());
        // One that we published to is not made anew: it would hide what is lost.
        stream.create = stream.create && self.created.is_empty();
        let ack_timeout = self.ack_timeout;
        self.verifying.start(async move {
            let facts = nats::verify(&client, &stream, &template, ack_timeout).await?;
            let is_rewritten = is_rewritten(&client, &stream.name, &facts, mark).await;
            Ok(Seen { facts, acked: mark.acked, is_rewritten })
        });
    }

    /// Takes in what the look gave.
    pub(super) fn verified(&mut self, result: Result<Seen, StreamError>, now: Instant) -> Verified {
        let error = match result {
            Ok(seen) => {
                if let Some(regression) = self.regression(&seen) {
                    return self.regressed(regression, now);
                }
                self.sound(seen.facts, now);
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

    fn regressed(&mut self, regression: Regression, now: Instant) -> Verified {
        self.failures += 1;
        let since = *self.behind_since.get_or_insert(now);
        let may_catch_up = regression.created == self.created;
        let patience = match regression.copies {
            Copies::One => BEHIND_MAX,
            Copies::Several => BEHIND_MAX_CLUSTERED,
        };
        let is_early = may_catch_up && now.duration_since(since) < patience;
        let wait = if is_early { BEHIND_LOOK } else { VERIFY.after(self.failures) };
        if self.state != State::Disconnected {
            self.state = State::Unverified { at: now + wait };
        }
        if is_early {
            let text = format!("{}; looking again before that counts as lost", regression.text);
            return Verified::Closed(Closure { kind: ClosureKind::StreamUnavailable, text });
        }
        Verified::Regressed(regression)
    }

    /// Whether the stream has lost what it had acknowledged.
    fn regression(&self, seen: &Seen) -> Option<Regression> {
        let Seen { facts: Facts { created, last_seq, .. }, acked, .. } = seen;
        let name = &self.stream.name;
        let is_new = !self.created.is_empty() && self.created != *created;
        let text = if is_new {
            format!(
                "stream \"{name}\" was created anew at {created}; the one that we published to is of \
                 {}",
                self.created
            )
        } else if last_seq < acked {
            format!("stream \"{name}\" went back to sequence {last_seq}; it had given {acked}")
        } else if seen.is_rewritten {
            format!("stream \"{name}\" holds another message under sequence {acked} than it did")
        } else {
            return None;
        };
        // Of a new stream it is known what is left: nothing, whatever others have put there since.
        let (is_rewritten, copies) = (seen.is_rewritten && !is_new, seen.facts.copies);
        Some(Regression {
            created: created.clone(),
            last_seq: *last_seq,
            text,
            is_rewritten,
            copies,
        })
    }

    fn sound(&mut self, facts: Facts, now: Instant) {
        if self.state != State::Disconnected {
            self.state = State::Verified { again_at: now + VERIFY_AGAIN };
        }
        if self.look_above.is_some() {
            self.look_at.get_or_insert(now);
        }
        self.created.clone_from(&facts.created);
        self.failures = 0;
        self.behind_since = None;
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

/// Whether the stream holds another message than ours under the last sequence that we know of. One
/// that is gone by the stream's own limits says nothing.
async fn is_rewritten(client: &Client, stream: &str, facts: &Facts, mark: StreamMark) -> bool {
    let Some(id) = mark.event_id else { return false };
    if mark.acked < facts.first_seq || mark.acked > facts.last_seq {
        return false;
    }
    match nats::held_at(client, stream, mark.acked).await {
        Ok(held) => held.is_some_and(|held| held.event_id != Some(id)),
        Err(error) => {
            // A user who may not read messages publishes all the same; only this look is lost.
            debug!(%error, "cannot look what the stream holds at its last acknowledged sequence");
            false
        }
    }
}
