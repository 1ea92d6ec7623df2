//! The loop of the producing half: from the outbox to the stream.
//!
//! One task owns all delivery state. Each turn starts what I/O can start, then absorbs in one
//! `select!` what happened; no arm awaits. So reading, answers and commits overlap, and there is
//! no lock and no question of cancel safety.

mod batches;
mod broker;
pub mod chores;
mod duplicate;
mod hold;
mod holding;
mod letters;
pub mod outage;
mod reader;
mod report;
mod slot;
pub mod status;
mod stream;

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use thiserror::Error;
use tokio::{sync::watch, time::sleep_until};
use tracing::{info, warn};

use self::{
    broker::Broker,
    holding::{Ended, Holding},
    report::Report,
    status::{Heartbeat, Link, Phase, Status},
};
use crate::{
    config::{self, OnDenied, Wake},
    delivery::{Attempt, Closure, Company, Limits, Outcome, Rejection, Rules, Ticket, Transition},
    event::Event,
    failpoint,
    metrics::{Dependency, Failure, Metrics},
    nats::{Absorbed, NotSent, Publisher, StreamError},
    outbox::PageLimits,
    pg::schema::Schema,
    shutdown::Shutdown,
    wire::{Message, SubjectTemplate},
};

/// Messages handed over in one turn at most, so that answers are looked at in between.
const DISPATCH_MAX: usize = 512;

/// Answers absorbed in one turn at most, so that sending goes on in between.
const ABSORB_MAX: usize = 1024;

/// The longest wait of the loop: it turns, and says so, also when nothing happens.
const TURN: Duration = Duration::from_secs(1);

/// What a relay is to do, taken from the configuration.
#[derive(Debug, Clone)]
pub struct Settings {
    /// Where the outbox is.
    pub database: config::Database,
    /// Its schema.
    pub schema: Schema,
    /// The relay's name.
    pub relay: String,
    /// Who we are, for people who look at the position.
    pub holder: String,
    /// The stream.
    pub stream: config::Stream,
    /// The route's subject.
    pub template: SubjectTemplate,
    /// The default `ce-source`.
    pub source: String,
    /// How long a publish may stay unanswered.
    pub ack_timeout: Duration,
    /// The bounds of what is on its way and in memory.
    pub limits: Limits,
    /// Rows of a page at most.
    pub batch_events: usize,
    /// Bytes of a page at most.
    pub batch_bytes: usize,
    /// Bytes of a payload that a letter copies at most.
    pub letter_bytes_max: u64,
    /// How an event is tried again, and what a dead letter does to its key.
    pub rules: Rules,
    /// What to do when the server forbids a subject.
    pub on_denied: OnDenied,
    /// Between looks while there is work; more while each brings plenty.
    pub poll_interval: Duration,
    /// Between looks while asleep.
    pub idle_interval: Duration,
    /// How an idle relay is woken.
    pub wake: Wake,
    /// How long stopping may take.
    pub grace: Duration,
    /// Accept a database that was restored into another cluster.
    pub rescan: bool,
}

/// Why a relay ended by itself. All of these want a person.
#[derive(Debug, Error)]
pub enum RelayError {
    /// The position was made in another Postgres cluster, where transaction numbers differ.
    #[error(
        "this database was restored into another Postgres cluster: the relay's position means \
         nothing here; start once with `postrider run --rescan` to publish what was not settled"
    )]
    ForeignCluster,
    /// The schema was migrated by a newer program.
    #[error(
        "the schema \"{schema}\" has version {have}, this program knows {know}: install the \
         newer postrider"
    )]
    NewerSchema {
        /// The schema.
        schema: String,
        /// Its version.
        have: i32,
        /// What we know.
        know: i32,
    },
    /// The stream would lose events.
    #[error("{0}; {hint}", hint = .0.hint())]
    Stream(StreamError),
}

/// The producing half.
pub struct Relay {
    settings: Settings,
    broker: Broker,
    status: Arc<watch::Sender<Status>>,
    heartbeat: Heartbeat,
    metrics: Arc<Metrics>,
    shutdown: Shutdown,
    report: Report,
}

impl Relay {
    /// A relay that has not tried anything yet.
    pub fn new(
        settings: Settings,
        publisher: Publisher,
        status: Arc<watch::Sender<Status>>,
        metrics: Arc<Metrics>,
        shutdown: Shutdown,
    ) -> Self {
        let heartbeat = status.borrow().last_turn.clone();
        let broker = Broker::new(
            publisher,
            settings.stream.clone(),
            settings.template.clone(),
            settings.source.clone(),
            settings.ack_timeout,
        );
        Self { settings, broker, status, heartbeat, metrics, shutdown, report: Report::default() }
    }

    /// Relays until asked to stop.
    ///
    /// # Errors
    /// [`RelayError`]: what only a person can mend. Everything else is waited for.
    pub async fn run(mut self) -> Result<(), RelayError> {
        while let Some(mut holding) = self.hold().await? {
            match self.relay(&mut holding).await? {
                Ended::Stopped => break,
                Ended::Again => self.status.send_modify(|status| status.phase = Phase::Starting),
                Ended::Lost(why) => {
                    warn!(error = %why, "lost the relay's session; getting another");
                    self.metrics.dependencies.lost(Dependency::Postgres);
                    self.metrics.dependencies.standing_by();
                    self.status.send_modify(|status| {
                        status.postgres = Link::Down { detail: why };
                        status.phase = Phase::Starting;
                    });
                }
            }
        }
        self.status.send_modify(|status| status.phase = Phase::Stopped);
        Ok(())
    }

    /// The loop, for as long as we hold the right to run it.
    async fn relay(&mut self, holding: &mut Holding) -> Result<Ended, RelayError> {
        let shutdown = self.shutdown.clone();
        let mut stop_at = None;
        loop {
            let now = Instant::now();
            self.heartbeat.turn(now);
            if shutdown.is_stopping() {
                let since = *stop_at.get_or_insert(now);
                if self.has_stopped(holding, since, now) {
                    return Ok(Ended::Stopped);
                }
            }
            self.broker.verify(holding.delivery.stream_mark(), now);
            if holding.delivery.scan_again_at().is_some_and(|at| at <= now) {
                self.broker.want_look(holding.delivery.stream_mark().floor, now);
            }
            self.broker.look(now);
            holding.settle(now);
            holding.record_letters(now);
            if let Some(limits) = self.page_limits() {
                holding.fetch(limits, now);
                holding.look_at_letters(limits, now);
            }
            let more = self.dispatch(holding, now);
            self.report(holding, now);
            let due = self.next_due(holding, now);
            let Broker { verifying, looking, duplicates, publisher, .. } = &mut self.broker;
            let ended = tokio::select! { biased;
                () = shutdown.at_once() => Some(Ended::Stopped),
                (settlement, result) = holding.settling.done() => {
                    self.settled(holding, settlement, result).err()
                }
                reading = holding.fetching.done() => self.fetched(holding, reading).err(),
                (records, result) = holding.recording.done() => {
                    Self::recorded(holding, records, result).err()
                }
                looking = holding.looking.done() => holding.looked(looking, Instant::now()).err(),
                seen = verifying.done() => self.verified(holding, seen)?,
                looked = looking.done() => {
                    self.looked_up(holding, looked);
                    None
                }
                healed = holding.healing.done() => Self::healed(healed),
                checked = duplicates.done() => {
                    self.checked(holding, checked);
                    None
                }
                absorbed = publisher.next() => {
                    self.absorb(holding, absorbed);
                    None
                }
                () = holding.outbox.notified() => {
                    holding.notified(Instant::now());
                    None
                }
                () = holding.outbox.closed() => {
                    Some(Ended::Lost("the session with Postgres ended".to_owned()))
                }
                () = shutdown.stopping(), if stop_at.is_none() => None,
                () = tokio::task::yield_now(), if more => None,
                () = sleep_until(due.into()) => None,
            };
            if let Some(ended) = ended {
                return Ok(ended);
            }
        }
    }

    /// The bounds of a page; `None` before the stream has told how large a message may be, and what
    /// it holds of what was sent before.
    fn page_limits(&self) -> Option<PageLimits> {
        let facts = self.broker.facts().filter(|_| self.broker.is_looked_into());
        facts.map(|facts| PageLimits {
            events: self.settings.batch_events,
            bytes: self.settings.batch_bytes,
            event_bytes: facts.limits.message_bytes_max,
        })
    }

    /// When the loop has to turn although nothing happens.
    fn next_due(&self, holding: &Holding, now: Instant) -> Instant {
        let delayed = if self.broker.is_ready() { holding.delivery.next_due(now) } else { None };
        let read = self.page_limits().and_then(|_| holding.read_due());
        let look = self.page_limits().and_then(|_| holding.look_due());
        [holding.settle_due(), holding.record_due(), look, read, delayed, self.broker.next_due()]
            .into_iter()
            .flatten()
            .min()
            .map_or(now + TURN, |due| due.min(now + TURN))
    }

    /// Whether a stopping relay is done, or its time is over.
    fn has_stopped(&mut self, holding: &mut Holding, since: Instant, now: Instant) -> bool {
        failpoint::pass("stopping");
        holding.stop(now);
        if now.duration_since(since) >= self.settings.grace / 2 {
            holding.stop_sweeping();
        }
        self.status.send_if_modified(|status| {
            let before = status.phase;
            status.phase = Phase::Stopping;
            before != Phase::Stopping
        });
        let reachable = self.broker.is_ready() && holding.delivery.breaker().cause().is_none();
        let done = if reachable { holding.is_drained() } else { holding.is_stranded() };
        if done {
            info!("everything that was sent is settled");
            return true;
        }
        let over = now.duration_since(since) >= self.settings.grace;
        if over {
            warn!(
                in_flight = holding.delivery.in_flight(),
                waiting = holding.delivery.events(),
                "shutdown.grace is over: what is not settled is sent again by the next run"
            );
        }
        over
    }

    /// Hands over what may go. Returns whether more may go at once.
    fn dispatch(&mut self, holding: &mut Holding, now: Instant) -> bool {
        if holding.delivery.in_flight() > 0 {
            failpoint::pass("in-flight");
        }
        if !self.broker.is_ready() {
            holding.delivery.interrupt_measuring();
            return false;
        }
        Self::measure(holding, now);
        (0..DISPATCH_MAX).all(|_| self.dispatch_next(holding, now))
    }

    /// Hands over what goes next. Returns whether more may go at once.
    fn dispatch_next(&mut self, holding: &mut Holding, now: Instant) -> bool {
        let Some(ticket) = holding.delivery.next(now) else { return false };
        if holding.delivery.is_stale(ticket, now) {
            holding.delivery.give_back(ticket);
            self.broker.want_look(holding.delivery.stream_mark().floor, now);
            return false;
        }
        match holding.delivery.company(ticket, now) {
            Company::Together(kind, batch) if self.send_together(holding, (kind, &batch), now) => {
                return true;
            }
            Company::Alone | Company::Together(..) => {}
            Company::Later => return false,
        }
        let Some((event, sent_before)) = holding.delivery.event(ticket) else { return true };
        if sent_before {
            self.metrics.publishing.retried();
        }
        match self.broker.encoder.encode(event) {
            Err(refusal) => {
                let rejection = Rejection { code: refusal.code(), text: refusal.to_string() };
                self.refuse(holding, ticket, rejection, now);
            }
            Ok(message) => match self.hand_over(ticket, message, now) {
                Ok(()) => holding.delivery.sent(ticket, now),
                Err(NotSent::TooLarge) => {
                    let text = "larger than the server's max_payload".to_owned();
                    let rejection = Rejection { code: "payload_too_large", text };
                    self.refuse(holding, ticket, rejection, now);
                }
                Err(NotSent::NotNow) => {
                    holding.delivery.give_back(ticket);
                    return false;
                }
            },
        }
        true
    }

    fn hand_over(&mut self, ticket: Ticket, message: Message, now: Instant) -> Result<(), NotSent> {
        self.metrics.publishing.left_out(message.left_out);
        failpoint::pass("publish");
        let handed = self.broker.publisher.publish(ticket, message, now);
        failpoint::pass("handed-over");
        handed
    }

    fn refuse(
        &mut self,
        holding: &mut Holding,
        ticket: Ticket,
        rejection: Rejection,
        now: Instant,
    ) {
        self.metrics.publishing.failed(Failure::Refused);
        holding.delivery.refuse(ticket, rejection, now);
        self.report.deaths(&self.metrics, &mut holding.delivery);
    }

    fn absorb(&mut self, holding: &mut Holding, first: Absorbed) {
        let now = self.report.note_the_time();
        let mut next = Some(first);
        for _ in 0..ABSORB_MAX {
            let Some(absorbed) = next else { break };
            self.absorb_one(holding, absorbed, now);
            next = self.broker.publisher.try_next(now);
        }
        if let Some(last) = next {
            self.absorb_one(holding, last, now);
        }
        self.metrics.publishing.published(&mut self.report.batch);
    }

    fn absorb_one(&mut self, holding: &mut Holding, absorbed: Absorbed, now: Instant) {
        match absorbed {
            Absorbed::Outcome { ticket, outcome, took } => {
                if let Outcome::Acked { stream_seq, duplicate: true } = outcome
                    && !holding.delivery.explains_duplicate(ticket)
                    && let Some((event, _)) = holding.delivery.event(ticket)
                {
                    self.broker.check(ticket, event, stream_seq);
                    return;
                }
                self.resolve(holding, ticket, outcome, (took, now));
            }
            Absorbed::Unconfirmed { ticket, silent } => {
                self.metrics.publishing.failed(Failure::Unconfirmed);
                holding.delivery.resolve(ticket, Outcome::Unconfirmed, now);
                if silent {
                    // Is it the stream, or does nothing at all answer? The look at it tells.
                    self.broker.doubt(now);
                }
            }
            Absorbed::Batch { tickets, outcome, took, silent } => {
                self.answered_together(holding, &tickets, &outcome, (took, now));
                if silent {
                    self.broker.doubt(now);
                }
            }
            Absorbed::Connected => {
                info!("connected to NATS");
                self.broker.connected(now);
                holding.delivery.slow_start();
                holding.delivery.measure_anew();
            }
            Absorbed::Disconnected => {
                warn!("lost the connection to NATS; what is on its way is sent again");
                self.broker.disconnected();
                self.metrics.dependencies.lost(Dependency::Nats);
                let detail = "connection lost, connecting again".to_owned();
                self.status.send_modify(|status| status.nats = Link::Down { detail });
            }
            Absorbed::Denied { closure, subject } => self.denied(holding, closure, subject, now),
        }
    }

    /// Judges what the broker told us about one event.
    fn resolve(
        &mut self,
        holding: &mut Holding,
        ticket: Ticket,
        outcome: Outcome,
        (took, now): (Duration, Instant),
    ) {
        let event = holding.delivery.event(ticket);
        self.report.outcome(&self.metrics, event, &outcome, took);
        let transition = holding.delivery.resolve(ticket, outcome, now);
        failpoint::pass("answered");
        if matches!(transition, Transition::Opened | Transition::WentBack) {
            self.broker.doubt(now);
        }
        self.report.deaths(&self.metrics, &mut holding.delivery);
        self.report.gate(&mut holding.delivery, transition, now);
    }

    /// What the stream holds in place of an event that it called a duplicate without our knowing.
    fn checked(&mut self, holding: &mut Holding, (ticket, outcome): (Ticket, Outcome)) {
        let now = self.report.note_the_time();
        self.resolve(holding, ticket, outcome, (Duration::ZERO, now));
        self.metrics.publishing.published(&mut self.report.batch);
    }

    /// The server forbids us something: a subject, which concerns the events of it, or all of it.
    fn denied(
        &mut self,
        holding: &mut Holding,
        closure: Closure,
        subject: Option<String>,
        now: Instant,
    ) {
        // What the API forbids is no event's trouble.
        let may_retry = self.settings.on_denied == OnDenied::Retry;
        let denied = subject.filter(|subject| may_retry && !subject.starts_with('$'));
        let Some(subject) = denied else {
            self.metrics.publishing.failed(Failure::PermissionDenied);
            self.close_gate(holding, closure, now);
            return;
        };
        let encoder = &self.broker.encoder;
        let is_to =
            |event: &Event| encoder.encode(event).is_ok_and(|message| *message.subject == *subject);
        // A batch that lacks its last message is never answered; its events go one by one.
        let delivery = &holding.delivery;
        let holds = |ticket| delivery.event(ticket).is_some_and(|(event, _)| is_to(event));
        self.broker.publisher.give_up_batches(holds);
        // The first complaint of a volley answers for all of them; the others find none.
        for ticket in holding.delivery.on_their_way(is_to) {
            self.broker.publisher.answered_otherwise(ticket);
            // The complaint names a subject and no message: this one may have been taken before.
            holding.delivery.doubt(ticket);
            let reason = Rejection { code: "permission_denied", text: closure.text.clone() };
            let outcome = Outcome::Busy { reason, attempt: Attempt::Counts };
            self.resolve(holding, ticket, outcome, (Duration::ZERO, now));
        }
    }

    fn close_gate(&mut self, holding: &mut Holding, closure: Closure, now: Instant) {
        let transition = holding.delivery.close_gate(closure, now);
        self.report.gate(&mut holding.delivery, transition, now);
    }
}
