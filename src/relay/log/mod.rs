//! Log of the broker, as the relay sees it: the connection, the verified state, scans and complaints.

mod denial;
mod duplicates;
pub(super) mod healing;
mod regression;
mod scan;
mod scan_schedule;
mod verification;

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use tracing::{info, warn};

use self::{
    duplicates::{Absence, Duplicates},
    scan::{ScanError, ScanProgress, Scanned},
};
use crate::{
    broker::{BrokerError, Cause, Creation, Keeps, LogFacts, VerifiedLog, Warning},
    delivery::{Backoff, Closure, ClosureKind, Rejection, StreamMark, Ticket},
    event::Event,
    relay::{holding::Holding, operation::Operation, publishing::readiness::Readiness},
    sink::Sink,
    wire::Encoder,
};

use self::regression::Regression;

/// The waits before a log that cannot be used is verified again.
const VERIFY: Backoff =
    Backoff { first: Duration::from_millis(250), longest: Duration::from_secs(5) };

/// How often a sound log is verified again: whether it still is, and is the one that it was.
const VERIFY_AGAIN: Duration = Duration::from_mins(1);

/// Complaints of the server that are remembered, so that each is logged once a connection.
const DENIALS_MAX: usize = 16;

/// The publisher, and whether the stream behind it may be used.
pub(in crate::relay) struct BrokerLog {
    pub(in crate::relay) sink: Sink,
    pub(in crate::relay) encoder: Encoder,
    pub(in crate::relay) verifying: Operation<Result<VerifiedLog, BrokerError>>,
    pub(in crate::relay) scanning: Operation<Result<Scanned, ScanError>>,
    /// The scan that is on its way, and since when.
    scan: Option<(Arc<ScanProgress>, Instant)>,
    ack_timeout: Duration,
    state: LogState,
    failures: u32,
    facts: Option<LogFacts>,
    warned: Vec<Warning>,
    pub(in crate::relay) duplicates: Duplicates,
    /// The identity of the log that was published to; `None` before the first, and when it is
    /// unknown.
    identity: Option<i64>,
    /// Exclusive lower bound of the scan that has to come before anything is published; `None` when
    /// there is none to come.
    scan_above: Option<u64>,
    scan_at: Option<Instant>,
    /// Since when no publish is answered, although one was waited for in full.
    silent_since: Option<Instant>,
    /// Requests that the server was heard to forbid, by its words; [`DENIALS_MAX`] at most.
    denials: Vec<String>,
    /// Since when the stream stands below what it acknowledged.
    behind_since: Option<Instant>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum LogState {
    Disconnected,
    /// Connected, and the log is to be verified then.
    Unverified {
        at: Instant,
    },
    Verified {
        again_at: Instant,
    },
}

/// The meaning of the verified log for the publishing gate.
pub(in crate::relay) enum Verified {
    /// The log may be used.
    Sound,
    /// The log may not be used for now.
    Closed(Closure),
    /// The log has lost what it had acknowledged.
    Regressed(Regression),
    /// The log was never usable since the start, so a person has to act.
    Unusable(BrokerError),
}

impl BrokerLog {
    /// A broker that is not connected yet.
    pub(in crate::relay) fn new(sink: Sink, encoder: Encoder, ack_timeout: Duration) -> Self {
        Self {
            sink,
            encoder,
            verifying: Operation::new(),
            scanning: Operation::new(),
            scan: None,
            ack_timeout,
            state: LogState::Disconnected,
            failures: 0,
            facts: None,
            warned: Vec::new(),
            duplicates: Duplicates::default(),
            identity: None,
            scan_above: None,
            scan_at: None,
            silent_since: None,
            denials: Vec::new(),
            behind_since: None,
        }
    }

    /// A new holding begins: it knows the identity of the log, and what an earlier one may have
    /// sent is above that sequence.
    pub(in crate::relay) fn begin(
        &mut self,
        identity: Option<i64>,
        scan_above: Option<u64>,
        now: Instant,
    ) {
        self.identity = identity;
        self.sink.forget();
        self.verifying.clear();
        self.scanning.clear();
        self.scan = None;
        self.duplicates.forget();
        self.scan_above = scan_above;
        self.scan_at = None;
        self.silent_since = None;
        self.behind_since = None;
        self.doubt(now);
    }

    /// Starts verifying the log, or scanning it, when it is time to.
    pub(in crate::relay) fn start_due(&mut self, holding: &Holding, now: Instant) {
        self.verify(holding.delivery.stream_mark(), now);
        if holding.delivery.scan_again_at().is_some_and(|at| at <= now) {
            self.want_scan(holding.delivery.scan_above(), now);
        }
        self.start_scan(&holding.outbox, now);
    }

    /// The stream says that it holds this event, under a sequence, and we do not know since when.
    /// Reads the message to compare it.
    pub(in crate::relay) fn check(&mut self, ticket: Ticket, event: &Event, stream_seq: u64) {
        match self.encoder.encode(event).ok().zip(self.sink.message_at(stream_seq)) {
            Some((message, reading)) => {
                let keeps = self.facts.as_ref().map(|facts| facts.keeps);
                let is_wanted = ticket.is_letter() && keeps == Some(Keeps::UntilItsLimits);
                let gone = if is_wanted { Absence::IsWanted } else { Absence::WasThere };
                self.duplicates.check(ticket, message, (stream_seq, reading), gone);
            }
            // The limits changed since: it is refused when it goes again, unless the stream has it.
            // Or there is no connection any more.
            None => self.duplicates.unconfirmed(ticket),
        }
    }

    /// The condition of the broker that keeps all messages back; `None` when they may go.
    pub(in crate::relay) fn obstacle(&self) -> Option<Readiness> {
        match self.state {
            LogState::Disconnected => Some(Readiness::Disconnected),
            LogState::Unverified { .. } => Some(Readiness::Unverified),
            LogState::Verified { .. } => self.scan_above.map(|_| Readiness::Scanning),
        }
    }

    /// Whether the outbox may be read: its rows are compared with what the stream holds.
    pub(in crate::relay) fn is_scanned(&self) -> bool {
        self.scan_above.is_none()
    }

    fn is_verified(&self) -> bool {
        matches!(self.state, LogState::Verified { .. })
    }

    /// The identity of the log that is published to.
    pub(in crate::relay) fn identity(&self) -> Option<i64> {
        self.identity
    }

    /// Whether there is a connection.
    pub(in crate::relay) fn is_connected(&self) -> bool {
        self.state != LogState::Disconnected
    }

    /// Facts of the log from the last time it was sound.
    pub(in crate::relay) fn facts(&self) -> Option<&LogFacts> {
        self.facts.as_ref()
    }

    /// When the log is verified or scanned next.
    pub(in crate::relay) fn next_due(&self) -> Option<Instant> {
        [self.verify_due(), self.scan_due()].into_iter().flatten().min()
    }

    fn verify_due(&self) -> Option<Instant> {
        match self.state {
            LogState::Unverified { at } | LogState::Verified { again_at: at }
                if self.verifying.is_idle() =>
            {
                Some(at)
            }
            LogState::Unverified { .. } | LogState::Disconnected | LogState::Verified { .. } => {
                None
            }
        }
    }

    /// Notes a new connection; the log is verified before messages go over it.
    pub(in crate::relay) fn connected(&mut self, now: Instant) {
        self.failures = 0;
        self.behind_since = None;
        self.silent_since = None;
        self.denials.clear();
        self.state = LogState::Unverified { at: now };
    }

    /// Gives the connection up, with what waits in the client's queue.
    pub(in crate::relay) fn abandon_connection(&mut self) {
        self.sink.abandon_connection();
        self.disconnected();
    }

    /// The connection is gone.
    pub(in crate::relay) fn disconnected(&mut self) {
        self.state = LogState::Disconnected;
        self.verifying.clear();
        self.scanning.clear();
        self.scan = None;
    }

    /// Verifies the log again, because its state is uncertain.
    pub(in crate::relay) fn doubt(&mut self, now: Instant) {
        if self.is_verified() {
            self.failures = 0;
            self.state = LogState::Unverified { at: now };
        }
    }

    /// Notes an answer to a publish.
    pub(in crate::relay) fn answered(&mut self) {
        self.silent_since = None;
    }

    /// No publish was answered for as long as one answer may take. Is it the store, the stream or
    /// everything? The next verification tells.
    pub(in crate::relay) fn unanswered(&mut self, now: Instant) {
        self.silent_since.get_or_insert(now);
        self.doubt(now);
    }

    /// The stream answers questions. Whether it does so while no publish was answered for twice as
    /// long as one may take: then the broker stores nothing, and its full disk is the usual reason.
    pub(in crate::relay) fn store_stalled(&self, now: Instant) -> Option<Closure> {
        let silent = now.saturating_duration_since(self.silent_since?);
        (silent >= self.ack_timeout).then(|| {
            let text = format!(
                "the broker answers questions about {}, and has confirmed no publish for {:?}: is its \
                 disk full?",
                self.sink.log(),
                self.ack_timeout.saturating_mul(2)
            );
            Closure::new(ClosureKind::StoreStalled, text)
        })
    }

    /// Whether a complaint of the server was not heard before over this connection.
    pub(in crate::relay) fn is_news(&mut self, complaint: &str) -> bool {
        let is_news = !self.denials.iter().any(|known| known == complaint);
        if is_news && self.denials.len() < DENIALS_MAX {
            self.denials.push(complaint.to_owned());
            return true;
        }
        false
    }

    /// Error for a request that the server forbids.
    pub(in crate::relay) fn denied(&self, complaint: String) -> BrokerError {
        self.sink.denied(complaint)
    }

    /// A closure, with the subject whose answer has caused it.
    pub(in crate::relay) fn named_closure(&self, event: &Event, closure: Closure) -> Closure {
        let Ok(message) = self.encoder.encode(event) else { return closure };
        let text = format!("subject \"{}\": {}", message.subject, closure.text);
        Closure { text, ..closure }
    }

    /// A reason, with the subject that it is about.
    pub(in crate::relay) fn named(&self, event: &Event, reason: Rejection) -> Rejection {
        let Ok(message) = self.encoder.encode(event) else { return reason };
        let text = format!("subject \"{}\": {}", message.subject, reason.text);
        Rejection { text, ..reason }
    }

    /// Verifies the log when it is time to. `mark` is what is known of it.
    pub(in crate::relay) fn verify(&mut self, mark: StreamMark, now: Instant) {
        if self.verify_due().is_none_or(|at| at > now) {
            return;
        }
        // A log that was published to is not created anew: that would hide what is lost.
        let is_new = self.identity.is_none() && mark.acked == 0;
        let creation = if is_new { Creation::Allowed } else { Creation::Forbidden };
        if let Some(verifying) = self.sink.verify(mark, creation) {
            self.verifying.start(verifying);
        }
    }

    /// Absorbs the result of a verification.
    pub(in crate::relay) fn verified(
        &mut self,
        result: Result<VerifiedLog, BrokerError>,
        now: Instant,
    ) -> Verified {
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
        if self.state != LogState::Disconnected {
            self.state = LogState::Unverified { at: now + VERIFY.after(self.failures) };
        }
        match &error {
            BrokerError::Refused { .. } if self.facts.is_none() => {
                return Verified::Unusable(error);
            }
            BrokerError::Unavailable { cause: Cause::Silent, .. } if self.is_connected() => {
                self.sink.reconnect();
                let (kind, hint) = (ClosureKind::BrokerStalled, error.hint().to_owned());
                return Verified::Closed(Closure::with_hint(kind, error.to_string(), hint));
            }
            BrokerError::Missing { .. }
            | BrokerError::Refused { .. }
            | BrokerError::Unavailable { .. } => {}
        }
        Verified::Closed(closure_of(&error))
    }

    fn sound(&mut self, facts: LogFacts, now: Instant) {
        if self.state != LogState::Disconnected {
            self.state = LogState::Verified { again_at: now + VERIFY_AGAIN };
        }
        if self.scan_above.is_some() {
            self.scan_at.get_or_insert(now);
        }
        self.identity = facts.identity.or(self.identity);
        self.sink.adopt(&facts);
        self.failures = 0;
        self.behind_since = None;
        self.encoder.set_limits(facts.limits.clone());
        if self.warned != facts.warnings {
            for Warning { text, hint } in &facts.warnings {
                warn!(log = %self.sink.log(), hint, "the stream {text}");
            }
            self.warned.clone_from(&facts.warnings);
        }
        if self.facts.is_none() {
            info!(log = %self.sink.log(), last_seq = facts.last_seq, "stream verified");
        }
        self.facts = Some(facts);
    }
}

/// Why nothing goes while the log cannot be used, and what to do about this very reason.
fn closure_of(error: &BrokerError) -> Closure {
    let kind = match error {
        BrokerError::Missing { .. } | BrokerError::Refused { .. } => ClosureKind::Misconfigured,
        BrokerError::Unavailable { cause: Cause::Denied, .. } => ClosureKind::PermissionDenied,
        BrokerError::Unavailable { .. } => ClosureKind::StreamUnavailable,
    };
    Closure::with_hint(kind, error.to_string(), error.hint().to_owned())
}
