//! Relay: a flow from the outbox to the log of a broker, and the loop that drives it.
//!
//! A single task owns all delivery state. Each turn starts the I/O that can start, then absorbs in
//! one `select!` what happened; no arm awaits. So reading, answers and commits overlap, without a
//! lock and without a question of cancel safety.
//!
//! | place | subject |
//! |---|---|
//! | `mod.rs` | [`Relay::run`] from holding to holding, and the loop of one holding |
//! | `leadership/` | which instance leads, and how long it trusts its lease |
//! | `holding/` | one time of being the leader: the session, the events in memory, the letters |
//! | `log/` | the connection to the broker, and what the relay has found out about its log |
//! | `publishing/` | whether and which messages are handed over, and what their answers mean |
//! | `report/` | log lines, metrics, the status, findings |
//! | `chores/` | measuring, notes, checkpoints, retention, beside the data path |

pub mod chores;
mod error;
mod holding;
pub mod leadership;
mod log;
mod operation;
mod publishing;
pub mod report;

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use tokio::{
    sync::{Notify, watch},
    time::{sleep, timeout},
};
use tracing::{info, warn};

pub use error::RelayError;

use self::{
    holding::{Ended, Holding},
    leadership::{turns::Turns, watchdog::Watchdog},
    log::{BrokerLog, healing},
    report::{Reporter, status::Status},
};
use crate::{
    clock,
    config::{self, OnDenied, Wake},
    delivery::{Backoff, DeliveryRules, WindowLimits, trusted_for},
    event::Filter,
    failpoint,
    metrics::FlowMetrics,
    outbox::{Candidate, PageLimits, RowLimits},
    pg::schema::Schema,
    shutdown::Shutdown,
    sink::Sink,
    wire::{Encoder, Mode, SubjectTemplate},
};

/// Longest wait of the loop. The loop turns, and notes its heartbeat, also when nothing happens.
const TURN: Duration = Duration::from_secs(1);

/// Longest wait of the loop while events are in memory. A turn that comes much later shows that the
/// process stood still.
const BUSY_TURN: Duration = Duration::from_millis(100);

/// Waits after holdings that wrote nothing and ended for a lasting reason: a revoked grant, a
/// damaged page.
const FRUITLESS: Backoff =
    Backoff { first: Duration::from_millis(200), longest: Duration::from_secs(10) };

/// Waits after sessions that ended before anything was written.
const SESSIONS: Backoff =
    Backoff { first: Duration::from_millis(20), longest: Duration::from_secs(1) };

/// Time for which an instance that has yielded a lease leaves it to others.
const YIELD: Duration = Duration::from_secs(3);

/// Time for releasing the lease. A lease that is not released in time ends by itself.
const RELEASE_MAX: Duration = Duration::from_secs(1);

/// Settings of a relay, from the configuration.
#[derive(Debug, Clone)]
pub struct RelaySettings {
    /// Database of the outbox.
    pub database: config::DatabaseConfig,
    /// Schema of the outbox.
    pub schema: Schema,
    /// The relay's name.
    pub relay: String,
    /// Route of the flow. The flow serves it alone, or as one of several shards.
    pub route: String,
    /// Events that the flow takes.
    pub filter: Filter,
    /// Candidate for the lease: this instance.
    pub candidate: Candidate,
    /// Stream of the route.
    pub stream: config::StreamConfig,
    /// Content mode of messages.
    pub mode: Mode,
    /// Template of the route's subject.
    pub template: SubjectTemplate,
    /// Default of `ce-source`.
    pub source: String,
    /// Time after which a publish without an answer is unconfirmed.
    pub ack_timeout: Duration,
    /// Bounds of the events in flight and in memory.
    pub limits: WindowLimits,
    /// Rows of a page at most.
    pub batch_events: usize,
    /// Bytes of a page at most.
    pub batch_bytes: usize,
    /// Bytes of a payload that are copied into a letter, at most. A larger payload stays in the
    /// outbox.
    pub letter_bytes_max: u64,
    /// Rules about retries, and about the later events of a dead letter's key.
    pub rules: DeliveryRules,
    /// Consequence when the server forbids a subject.
    pub on_denied: OnDenied,
    /// Pause between polls while there is work. It grows while each poll returns many rows.
    pub poll_interval: Duration,
    /// Pause between polls while the relay sleeps.
    pub idle_interval: Duration,
    /// Wake-up of a relay that sleeps.
    pub wake: Wake,
    /// Time that a stopping relay has to publish and settle the events in memory.
    pub grace: Duration,
    /// Whether to accept a database that was restored into another cluster.
    pub rescan: bool,
    /// Notifies the loop that the outbox breaks a condition which the relay requires of it.
    pub recheck: Arc<Notify>,
    /// Notifies that this instance is to yield its lease to another one.
    pub yielding: Arc<Notify>,
}

/// Relay of one flow: from the outbox to the log.
pub struct Relay {
    settings: RelaySettings,
    log: BrokerLog,
    report: Reporter,
    shutdown: Shutdown,
    watchdog: Watchdog,
    row_limits: Arc<RowLimits>,
}

impl Relay {
    /// A relay that has not tried to connect yet.
    pub fn new(
        settings: RelaySettings,
        sink: Sink,
        status: Arc<watch::Sender<Status>>,
        metrics: Arc<FlowMetrics>,
        shutdown: Shutdown,
    ) -> Self {
        let encoder = Encoder::new(settings.template.clone(), settings.source.clone());
        let encoder = encoder.with_mode(settings.mode);
        let log = BrokerLog::new(sink, encoder, settings.ack_timeout);
        let watchdog = Watchdog::new(trusted_for(settings.candidate.length));
        let report = Reporter::new(status, metrics);
        Self { settings, log, report, shutdown, watchdog, row_limits: Arc::default() }
    }

    /// Relays until asked to stop.
    ///
    /// # Errors
    /// [`RelayError`] for a failure that only a person can repair. The relay waits for the end of
    /// other failures.
    pub async fn run(mut self) -> Result<(), RelayError> {
        let mut fruitless = 0;
        while let Some(mut holding) = Box::pin(self.acquire_holding()).await? {
            let ended = Box::pin(self.relay(&mut holding)).await;
            self.watchdog.rest();
            let ended = match ended {
                Ok(ended) => ended,
                Err(error) => {
                    self.report.dead_letters.holding_ended(holding.answers());
                    release(&holding).await;
                    return Err(error);
                }
            };
            self.report.dead_letters.holding_ended(holding.answers());
            fruitless = if holding.has_written { 0 } else { fruitless + 1 };
            let wait = match ended {
                Ended::Stopped => {
                    release(&holding).await;
                    break;
                }
                Ended::Again => {
                    self.report.starting_again();
                    Duration::ZERO
                }
                Ended::Yielded => {
                    // Publishes in the client's queue are dropped before the lease is released.
                    self.log.abandon_connection();
                    release(&holding).await;
                    self.report.yielded(self.settings.candidate.length);
                    YIELD
                }
                Ended::Deposed(why) => {
                    // Publishes in the client's queue belong to a term that is over, so they are
                    // dropped.
                    self.log.abandon_connection();
                    self.report.holding_lost(why);
                    Duration::ZERO
                }
                Ended::Lost(why) => {
                    self.report.holding_lost(why);
                    SESSIONS.after(fruitless)
                }
                Ended::Failed(why) => {
                    self.report.holding_lost(why);
                    FRUITLESS.after(fruitless.max(1))
                }
            };
            drop(holding);
            self.rest(wait).await;
        }
        self.report.stopped();
        Ok(())
    }

    /// Waits between two holdings, and notes the heartbeat meanwhile.
    async fn rest(&self, wait: Duration) {
        let until = clock::now() + wait;
        while !self.shutdown.is_stopping() && clock::now() < until {
            self.report.turned(clock::now());
            let left = until.saturating_duration_since(clock::now());
            tokio::select! {
                () = sleep(left.min(TURN)) => {}
                () = self.shutdown.stopping() => {}
            }
        }
    }

    /// Runs the loop for one holding.
    async fn relay(&mut self, holding: &mut Holding) -> Result<Ended, RelayError> {
        let shutdown = self.shutdown.clone();
        let recheck = Arc::clone(&self.settings.recheck);
        let yielding = Arc::clone(&self.settings.yielding);
        let mut stop_at = None;
        let mut turns = Turns::start(clock::now());
        loop {
            let now = clock::now();
            self.report.turned(now);
            self.watchdog.turn(now, holding.delivery.events());
            self.note_lateness(holding, turns.begin(now), now);
            if shutdown.is_stopping() {
                let since = *stop_at.get_or_insert(now);
                if self.has_stopped(holding, since, now) {
                    return Ok(Ended::Stopped);
                }
            }
            self.log.start_due(holding, now);
            holding.write(now);
            if let Some(limits) = self.page_limits() {
                holding.fetch(limits, now);
                holding.load_letters(limits, now);
            }
            let more = self.dispatch(holding, now);
            self.report.snapshot(&self.log, holding, now);
            let due = self.next_due(holding, now);
            turns.plan(due.max(now));
            let BrokerLog { verifying, scanning, duplicates, sink, .. } = &mut self.log;
            let ended = tokio::select! { biased;
                () = shutdown.at_once() => Some(Ended::Stopped),
                (settlement, result) = holding.settling.done() => {
                    holding.settled(settlement, &result, &mut self.report).err()
                }
                (renewal, result) = holding.renewing.done() => {
                    holding.renewed(renewal, result).err()
                }
                reading = holding.fetching.done() => holding.fetched(reading, &self.report).err(),
                (records, part, result) = holding.recording.done() => {
                    holding.recorded(records, &part, &result, &mut self.report).err()
                }
                loading = holding.loading.done() => holding.loaded(loading, clock::now()).err(),
                seen = verifying.done() => self.verified(holding, seen)?,
                scanned = scanning.done() => self.scanned(holding, scanned).err(),
                healed = holding.healing.done() => healing::end_after(healed),
                checked = duplicates.done() => {
                    self.checked(holding, checked);
                    None
                }
                // Requests to end the holding are polled before the answers, because answers may
                // come without a pause.
                () = recheck.notified() => Some(Ended::Again),
                () = yielding.notified() => Some(Ended::Yielded),
                () = holding.outbox.closed() => {
                    Some(Ended::Lost("the session with Postgres ended".to_owned()))
                }
                absorbed = sink.next() => {
                    self.absorb(holding, absorbed);
                    None
                }
                () = holding.outbox.notified() => {
                    holding.notified(clock::now());
                    None
                }
                () = shutdown.stopping(), if stop_at.is_none() => None,
                () = tokio::task::yield_now(), if more => None,
                () = clock::sleep_until(due) => None,
            };
            if let Some(ended) = ended {
                return Ok(ended);
            }
        }
    }

    /// Bounds of a page. `None` before the log is verified, because its limits are unknown, and
    /// while it has to be scanned.
    fn page_limits(&self) -> Option<PageLimits> {
        let facts = self.log.facts().filter(|_| self.log.is_scanned());
        facts.map(|facts| PageLimits {
            events: self.settings.batch_events,
            bytes: self.settings.batch_bytes,
            event_bytes: facts.limits.message_bytes_max,
        })
    }

    /// Time of the next turn when nothing happens before.
    fn next_due(&self, holding: &Holding, now: Instant) -> Instant {
        let may_go = self.log.obstacle().is_none();
        let delayed = if may_go { holding.delivery.next_due(now) } else { None };
        let read = self.page_limits().and_then(|_| holding.read_due());
        let load = self.page_limits().and_then(|_| holding.load_due());
        let turn = if holding.delivery.events() > 0 { BUSY_TURN } else { TURN };
        let written = [holding.settle_due(), holding.renew_due(), holding.record_due()];
        let read = [load, read, delayed, self.log.next_due()];
        let due = written.into_iter().chain(read).flatten().min();
        due.map_or(now + turn, |due| due.min(now + turn))
    }

    /// Whether a stopping relay is done, or has used up its time.
    fn has_stopped(&mut self, holding: &mut Holding, since: Instant, now: Instant) -> bool {
        failpoint::pass("stopping");
        holding.stop(now);
        if now.duration_since(since) >= self.settings.grace / 2 {
            holding.end_final_poll();
        }
        self.report.stopping();
        let reachable =
            self.log.obstacle().is_none() && holding.delivery.breaker().cause().is_none();
        let done = if reachable { holding.is_drained() } else { holding.is_stranded() };
        if done {
            info!(
                "stopping cleanly: no message is in flight, and every answer is recorded in Postgres"
            );
            return true;
        }
        let over = now.duration_since(since) >= self.settings.grace;
        if over {
            warn!(
                in_flight = holding.delivery.in_flight(),
                waiting = holding.delivery.events(),
                "shutdown.grace is over before everything was answered and recorded; the next start sends the unsettled events again"
            );
        }
        over
    }
}

/// Releases the lease, so that a standby takes over at once.
async fn release(holding: &Holding) {
    let released = timeout(RELEASE_MAX, holding.outbox.release(holding.authority.term)).await;
    if !matches!(released, Ok(Ok(()))) {
        info!("could not release the lease; a standby takes over when the lease expires");
    }
}
