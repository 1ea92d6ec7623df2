//! Log of the broker, as the relay sees it: the connection, the verified state, scans and
//! complaints.

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

use self::{
    duplicates::{Absence, Duplicates},
    scan::{ScanError, ScanProgress, Scanned},
};
use crate::{
    broker::{BrokerError, Keeps, LogFacts, VerifiedLog, Warning},
    delivery::{Closure, ClosureKind, Rejection, Ticket},
    event::Event,
    relay::{holding::Holding, operation::Operation, publishing::readiness::Readiness},
    sink::Sink,
    wire::Encoder,
};

use self::regression::Regression;

/// Maximum number of the server's complaints that are remembered, so that each is logged once per
/// connection.
const DENIALS_MAX: usize = 16;

/// Log of the broker: the sink, and whether the log behind it may be used.
pub(in crate::relay) struct BrokerLog {
    pub(in crate::relay) sink: Sink,
    pub(in crate::relay) encoder: Encoder,
    pub(in crate::relay) verifying: Operation<Result<VerifiedLog, BrokerError>>,
    pub(in crate::relay) scanning: Operation<Result<Scanned, ScanError>>,
    /// Scan in progress, and when it began.
    scan: Option<(Arc<ScanProgress>, Instant)>,
    ack_timeout: Duration,
    state: LogState,
    failures: u32,
    facts: Option<LogFacts>,
    warned: Vec<Warning>,
    pub(in crate::relay) duplicates: Duplicates,
    /// Identity of the log that was published to; `None` before the first publish, and when the
    /// identity is unknown.
    identity: Option<i64>,
    /// Exclusive lower bound of the scan that has to come before anything is published; `None` when
    /// no scan is needed.
    scan_above: Option<u64>,
    scan_at: Option<Instant>,
    /// When a publish first stayed without an answer in time; `None` after each answer.
    silent_since: Option<Instant>,
    /// Complaints about permissions that were logged, at most [`DENIALS_MAX`].
    denials: Vec<String>,
    /// When the last sequence of the log was first seen below an acknowledged one.
    behind_since: Option<Instant>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum LogState {
    Disconnected,
    /// A connection exists. The log is verified at the time `at`, before anything is published.
    Unverified {
        at: Instant,
    },
    Verified {
        again_at: Instant,
    },
}

impl BrokerLog {
    /// A log without a connection.
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

    /// Begins a holding, with the identity of the log that was published to. An earlier run may
    /// have sent messages above `scan_above`.
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
        self.verify_soon(now);
    }

    /// Starts a verification or a scan that is due.
    pub(in crate::relay) fn start_due(&mut self, holding: &Holding, now: Instant) {
        self.verify(holding.delivery.stream_mark(), now);
        if holding.delivery.scan_again_at().is_some_and(|at| at <= now) {
            self.require_scan_above(holding.delivery.scan_above(), now);
        }
        self.start_scan(&holding.outbox, now);
    }

    /// Compares an event that the stream calls repeated with the message under this sequence.
    pub(in crate::relay) fn check(&mut self, ticket: Ticket, event: &Event, stream_seq: u64) {
        match self.encoder.encode(event).ok().zip(self.sink.message_at(stream_seq)) {
            Some((message, reading)) => {
                let keeps = self.facts.as_ref().map(|facts| facts.keeps);
                let is_wanted = ticket.is_letter() && keeps == Some(Keeps::UntilItsLimits);
                let gone = if is_wanted { Absence::IsWanted } else { Absence::WasThere };
                self.duplicates.check(ticket, message, (stream_seq, reading), gone);
            }
            // The event cannot be encoded because the limits have changed, or the connection has
            // ended. The event is judged when it is sent again.
            None => self.duplicates.unconfirmed(ticket),
        }
    }

    /// Condition of the broker that keeps all messages back; `None` when they may go.
    pub(in crate::relay) fn obstacle(&self) -> Option<Readiness> {
        match self.state {
            LogState::Disconnected => Some(Readiness::Disconnected),
            LogState::Unverified { .. } => Some(Readiness::Unverified),
            LogState::Verified { .. } => self.scan_above.map(|_| Readiness::Scanning),
        }
    }

    /// Whether no scan is needed any more. Only then may the outbox be read, because each row that
    /// is read is compared with the result of the scan.
    pub(in crate::relay) fn is_scanned(&self) -> bool {
        self.scan_above.is_none()
    }

    fn is_verified(&self) -> bool {
        matches!(self.state, LogState::Verified { .. })
    }

    /// Identity of the log that is published to.
    pub(in crate::relay) fn identity(&self) -> Option<i64> {
        self.identity
    }

    /// Whether a connection exists.
    pub(in crate::relay) fn is_connected(&self) -> bool {
        self.state != LogState::Disconnected
    }

    /// Facts from the last verification that found the log sound.
    pub(in crate::relay) fn facts(&self) -> Option<&LogFacts> {
        self.facts.as_ref()
    }

    /// Time of the next verification or scan.
    pub(in crate::relay) fn next_due(&self) -> Option<Instant> {
        [self.verify_due(), self.scan_due()].into_iter().flatten().min()
    }

    /// Notes a new connection to the broker. The log has to be verified before a message is sent.
    pub(in crate::relay) fn connected(&mut self, now: Instant) {
        self.failures = 0;
        self.behind_since = None;
        self.silent_since = None;
        self.denials.clear();
        self.state = LogState::Unverified { at: now };
    }

    /// Gives up the connection, with the messages in the client's queue.
    pub(in crate::relay) fn abandon_connection(&mut self) {
        self.sink.abandon_connection();
        self.disconnected();
    }

    /// Notes the end of the connection.
    pub(in crate::relay) fn disconnected(&mut self) {
        self.state = LogState::Disconnected;
        self.verifying.clear();
        self.scanning.clear();
        self.scan = None;
    }

    /// Verifies a usable log again, because its state has become uncertain.
    pub(in crate::relay) fn verify_soon(&mut self, now: Instant) {
        if self.is_verified() {
            self.failures = 0;
            self.state = LogState::Unverified { at: now };
        }
    }

    /// Notes that the broker has answered a publish, so that the log does not count as silent.
    pub(in crate::relay) fn answered(&mut self) {
        self.silent_since = None;
    }

    /// Notes that no publish was answered in time. The next verification shows whether the store,
    /// the stream or the whole broker is silent.
    pub(in crate::relay) fn unanswered(&mut self, now: Instant) {
        self.silent_since.get_or_insert(now);
        self.verify_soon(now);
    }

    /// Closure for a broker that answers requests and has acknowledged no publish for twice
    /// `ack_timeout`: it stores nothing, usually because its disk is full.
    pub(in crate::relay) fn store_stalled(&self, now: Instant) -> Option<Closure> {
        let silent = now.saturating_duration_since(self.silent_since?);
        (silent >= self.ack_timeout).then(|| {
            let text = format!(
                "the broker answers requests about {}, and has confirmed no publish for {:?}: is its \
                 disk full?",
                self.sink.log(),
                self.ack_timeout.saturating_mul(2)
            );
            Closure::new(ClosureKind::StoreStalled, text)
        })
    }

    /// Whether a complaint of the server is new on this connection.
    pub(in crate::relay) fn is_news(&mut self, complaint: &str) -> bool {
        let is_news = !self.denials.iter().any(|known| known == complaint);
        if is_news && self.denials.len() < DENIALS_MAX {
            self.denials.push(complaint.to_owned());
            return true;
        }
        false
    }

    /// Error of a request that the server forbids.
    pub(in crate::relay) fn denied(&self, complaint: String) -> BrokerError {
        self.sink.denied(complaint)
    }

    /// Adds the subject of the event to a closure.
    pub(in crate::relay) fn named_closure(&self, event: &Event, closure: Closure) -> Closure {
        let Ok(message) = self.encoder.encode(event) else { return closure };
        let text = format!("subject \"{}\": {}", message.subject, closure.text);
        Closure { text, ..closure }
    }

    /// Adds the subject of the event to a reason.
    pub(in crate::relay) fn named(&self, event: &Event, reason: Rejection) -> Rejection {
        let Ok(message) = self.encoder.encode(event) else { return reason };
        let text = format!("subject \"{}\": {}", message.subject, reason.text);
        Rejection { text, ..reason }
    }
}
