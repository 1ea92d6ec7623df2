//! Chores beside the data path: measuring, noting, checkpoints, retention. Each fails alone.
//!
//! All of them share one session. A chore that fails waits by itself and stops no other. When it
//! loses the session, the others get a new one.

mod agenda;
mod checkpoint;
mod consumer_keys;
mod depth;
mod grants;
mod letters;
mod note;
mod positions;
mod producers;
mod retention;

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use futures_util::future::select_all;
use tokio::{
    sync::watch,
    time::{sleep, sleep_until},
};
use tracing::{debug, info, warn};

use self::agenda::{Agenda, Duty};
pub(super) use self::depth::StandbyFigures;
use super::report::status::{Status, blocker_of};
use crate::{
    config,
    findings::chore_consequence,
    metrics::{Chore, FlowMetrics},
    outbox::{SESSION_SETTINGS, Upkeep},
    pg::{
        blocking::Blocking,
        connect::{Connection, connect},
        error::{Class, QueryError},
        schema::Schema,
    },
    shutdown::Shutdown,
};

/// Consecutive failures after which a chore is logged, inclusive. A single failure usually comes
/// from a server that goes away, which the relay reports.
const FAILURES_LOGGED: u32 = 3;

/// Number of failures after which a chore that keeps failing is logged again, each time.
const LOGGED_AGAIN: u32 = 60;

/// Wait before another session is tried.
const RECONNECT: Duration = Duration::from_secs(2);

/// Settings of the chores.
#[derive(Debug, Clone)]
pub struct ChoreSettings {
    /// Database of the outbox.
    pub database: config::DatabaseConfig,
    /// Schema of the outbox.
    pub schema: Schema,
    /// Names of all relays of this program.
    pub relays: Vec<String>,
    /// Time for which published rows stay in the outbox.
    pub retention: Duration,
    /// Time for which resolved letters stay in their table.
    pub letter_retention: Duration,
    /// Time for which audit rows of operators' acts stay.
    pub audit_retention: Duration,
}

/// Flow that the chores maintain.
#[derive(Debug, Clone)]
pub struct Maintained {
    /// The relay's name.
    pub relay: String,
    /// Status of the flow, to which the chores add their findings.
    pub status: Arc<watch::Sender<Status>>,
    /// The metrics of the flow.
    pub metrics: Arc<FlowMetrics>,
}

/// Runs the chores of all flows until asked to stop.
pub async fn run(settings: ChoreSettings, flows: Vec<Maintained>, shutdown: Shutdown) {
    let flow = |Maintained { relay, status, metrics }| {
        status.send_modify(|status| status.relay.clone_from(&relay));
        FlowChores {
            changes: status.subscribe(),
            relay,
            status,
            metrics,
            agenda: Agenda::new(Instant::now()),
            noted: None,
            upkeep: None,
            duty: None,
        }
    };
    let flows = flows.into_iter().map(flow).collect();
    let mut chores = ChoreRunner { settings, flows, session: None, connect_failures: 0 };
    loop {
        tokio::select! {
            () = chores.turn() => {}
            () = shutdown.stopping() => return,
        }
    }
}

/// Runner of the chores of all flows, over one session.
struct ChoreRunner {
    settings: ChoreSettings,
    flows: Vec<FlowChores>,
    session: Option<Arc<Connection>>,
    /// Number of failures in a row to get a session.
    connect_failures: u32,
}

/// Chores that a flow runs: its own, with or without those for the whole outbox.
#[derive(Debug, Clone, Copy)]
enum ChoreShare {
    /// Chores of its own, and those for the whole outbox.
    All,
    /// Chores of its own; another flow runs those for the whole outbox.
    Beside,
}

/// Chores of one flow.
struct FlowChores {
    relay: String,
    status: Arc<watch::Sender<Status>>,
    metrics: Arc<FlowMetrics>,
    changes: watch::Receiver<Status>,
    agenda: Agenda,
    /// Summary of the note for `postrider status` that is in the database.
    noted: Option<String>,
    /// Access to the flow's tables, over the session that all chores share.
    upkeep: Option<Upkeep>,
    /// The duty of the flow in the last turn of the chores.
    duty: Option<Duty>,
}

impl ChoreRunner {
    /// Runs the next chore, or waits for its time.
    async fn turn(&mut self) {
        let mut share = ChoreShare::All;
        for flow in &mut self.flows {
            if flow.observe(share) == Some(Duty::Leading) {
                share = ChoreShare::Beside;
            }
        }
        let due = |flow: &FlowChores| flow.duty.map(|duty| flow.agenda.next(duty).1);
        let first =
            self.flows.iter().enumerate().filter_map(|(index, flow)| Some((due(flow)?, index)));
        let Some((due, index)) = first.min() else {
            self.give_up_session();
            self.wait(None).await;
            return;
        };
        if due > Instant::now() {
            self.wait(Some(due)).await;
            return;
        }
        let Some(session) = self.session(index).await else { return };
        let Some(flow) = self.flows.get_mut(index) else { return };
        if !flow.work(&session, &self.settings).await {
            self.give_up_session();
        }
    }

    fn give_up_session(&mut self) {
        self.session = None;
        for flow in &mut self.flows {
            flow.upkeep = None;
        }
    }

    /// Waits until `due`, or until a change that a chore depends on.
    async fn wait(&mut self, due: Option<Instant>) {
        let session = self.session.clone();
        let ended = async {
            match session {
                Some(session) => session.closed().await,
                None => std::future::pending().await,
            }
        };
        let time = async {
            match due {
                Some(due) => sleep_until(due.into()).await,
                None => std::future::pending().await,
            }
        };
        let changes = self.flows.iter_mut().map(|flow| Box::pin(flow.changed()));
        let change = select_all(changes);
        let has_ended = tokio::select! {
            () = time => false,
            _ = change => false,
            () = ended => true,
        };
        if has_ended {
            self.give_up_session();
        }
    }

    /// The session of the chores. Opens one when there is none.
    async fn session(&mut self, index: usize) -> Option<Arc<Connection>> {
        if let Some(open) = self.session.clone().filter(|session| !session.is_closed()) {
            return Some(open);
        }
        self.give_up_session();
        let flow = self.flows.get(index)?;
        match self.open(&flow.relay, &flow.metrics).await {
            Ok(open) => {
                self.connect_failures = 0;
                self.session = Some(Arc::clone(&open));
                Some(open)
            }
            Err((error, hint)) => {
                self.connect_failures += 1;
                // Without a session the missing grants are unknown.
                for flow in &self.flows {
                    flow.status.send_if_modified(|status| {
                        !std::mem::take(&mut status.missing_grants).is_empty()
                    });
                }
                // While no flow leads, the relay itself logs that it waits for Postgres, so the
                // chores need no warning.
                let is_led = self.flows.iter().any(|flow| flow.duty.is_some_and(Duty::leads));
                if self.connect_failures == FAILURES_LOGGED && is_led {
                    warn!(
                        error,
                        hint,
                        "cannot connect to Postgres for measuring, checkpoints and retention; trying again"
                    );
                } else {
                    debug!(error, "cannot connect to Postgres for the chores; trying again");
                }
                sleep(RECONNECT).await;
                None
            }
        }
    }

    async fn open(
        &self,
        relay: &str,
        metrics: &FlowMetrics,
    ) -> Result<Arc<Connection>, (String, Option<&'static str>)> {
        let connection =
            connect(&self.settings.database, &format!("upkeep/{relay}"), &SESSION_SETTINGS)
                .await
                .map_err(|error| (error.to_string(), error.hint()))?;
        Ok(Arc::new(connection.measured(metrics.outbox.queries())))
    }
}

impl FlowChores {
    /// Observes the status of the flow. Returns its duty.
    fn observe(&mut self, share: ChoreShare) -> Option<Duty> {
        let seen = self.changes.borrow_and_update().clone();
        let duty = Duty::of(&seen).map(|duty| match share {
            ChoreShare::All => duty,
            ChoreShare::Beside => duty.beside(),
        });
        let is_new = self.duty != duty;
        self.duty = duty;
        let duty = duty?;
        if is_new {
            self.agenda.begin(duty, Instant::now());
        }
        if duty.leads() && self.noted.as_deref() != Some(note::summary(&seen).as_str()) {
            self.agenda.hurry(Chore::Note, Instant::now());
        }
        Some(duty)
    }

    /// Waits for a change that a chore depends on.
    async fn changed(&mut self) {
        let noted = self.noted.clone().unwrap_or_default();
        let duty = self.duty;
        // After a failure to write the note, the next attempt waits for its time, even when the
        // summary has changed.
        let may_note = duty.is_some_and(Duty::leads) && self.agenda.can_hurry(Chore::Note);
        let changed = |status: &Status| {
            let is_news = may_note && note::summary(status) != noted;
            let is_same = match (Duty::of(status), duty) {
                (Some(now), Some(before)) => now == before || now.beside() == before,
                (now, before) => now == before,
            };
            is_news || !is_same
        };
        // The sender lives as long as this borrow, so the wait cannot fail.
        drop(self.changes.wait_for(changed).await);
    }

    /// Runs the chore that is due. Returns whether the session is still usable.
    async fn work(&mut self, session: &Arc<Connection>, settings: &ChoreSettings) -> bool {
        let Some(duty) = self.duty else { return true };
        let (chore, _) = self.agenda.next(duty);
        let seen = self.status.borrow().clone();
        let upkeep = self.upkeep.take().unwrap_or_else(|| {
            Upkeep::new(Arc::clone(session), settings.schema.clone(), self.relay.clone())
        });
        let result = self.run(chore, (&upkeep, settings), &seen).await;
        let is_lost =
            result.as_ref().err().is_some_and(|error| error.class() == Class::SessionLost);
        if !is_lost {
            self.upkeep = Some(upkeep);
        }
        match &result {
            Ok(()) => self.unblocked(chore),
            Err(error) => self.blocked(chore, error),
        }
        self.report(duty, chore, result);
        !is_lost
    }

    async fn run(
        &mut self,
        chore: Chore,
        (session, settings): (&Upkeep, &ChoreSettings),
        seen: &Status,
    ) -> Result<(), QueryError> {
        let metrics = &self.metrics;
        match chore {
            Chore::Depth => depth::measure(session, &self.status, metrics).await,
            Chore::Note => {
                let summary = note::write(session, seen).await?;
                self.noted = Some(summary);
                Ok(())
            }
            Chore::Checkpoint => checkpoint::take(session, settings.retention).await,
            Chore::Retention => retention::run(session, settings.retention, metrics).await,
            Chore::Letters => letters::forget(session, settings).await,
            Chore::ConsumerKeys => consumer_keys::forget(session).await,
            Chore::Grants => grants::find_missing(session, &self.status).await,
            Chore::Producers => producers::find_hindered(session, &self.status).await,
            Chore::Positions => {
                let known = (settings.relays.as_slice(), settings.retention);
                positions::find_abandoned(session, known, &self.status, metrics).await?;
                depth::measure_losses(session, &self.status, metrics).await
            }
        }
    }

    /// Reports the session whose lock a chore waited for, when that is why it failed.
    fn blocked(&self, chore: Chore, error: &QueryError) {
        // A healing locks the position's row, and nobody should end the healing's session.
        let is_ours = error.blocking().is_some_and(Blocking::is_ours);
        let Some(blocker) = blocker_of(error).filter(|_| !is_ours) else { return };
        let before = self.status.borrow().blocker.clone();
        if before.is_none_or(|(_, before)| before.next != blocker.next) {
            warn!(
                session = blocker.session,
                hint = blocker.next,
                "another session holds a lock that the relay's statements wait for"
            );
        }
        self.status.send_modify(|status| status.blocker = Some((chore, blocker)));
    }

    /// Clears the blocking session once the chore that waited for its lock works again.
    fn unblocked(&self, chore: Chore) {
        self.status.send_if_modified(|status| {
            let is_over = status.blocker.as_ref().is_some_and(|(met_by, _)| *met_by == chore);
            if is_over {
                status.blocker = None;
            }
            is_over
        });
    }

    /// Counts and logs the result of a chore.
    fn report(&mut self, duty: Duty, chore: Chore, result: Result<(), QueryError>) {
        let now = Instant::now();
        let name = chore.as_str();
        let error = match result {
            Ok(()) => {
                let failures = self.agenda.done(duty, chore, now);
                self.metrics.chores.done(chore);
                self.failing(chore, 0);
                if failures >= FAILURES_LOGGED {
                    info!(chore = name, failures, "the chore succeeded again after failures");
                }
                return;
            }
            Err(error) => error,
        };
        let (failures, wait) = self.agenda.failed(chore, now);
        self.metrics.chores.failed(chore, failures);
        self.failing(chore, failures);
        if error.class() == Class::Permission {
            self.agenda.hurry(Chore::Grants, now);
        }
        // The relay of a flow that does not lead logs what it waits for, so the failed chore needs
        // no warning.
        let is_news = failures == FAILURES_LOGGED || failures.is_multiple_of(LOGGED_AGAIN);
        if is_news && duty != Duty::Waiting {
            warn!(
                chore = name, %error, failures, hint = error.hint().as_deref(),
                "a chore fails again and again: {}; trying again in {}",
                chore_consequence(chore),
                humantime::format_duration(wait)
            );
        } else {
            debug!(chore = name, %error, failures, "a chore failed");
        }
    }

    /// Notes in the status how often a chore has failed in a row.
    fn failing(&self, chore: Chore, failures: u32) {
        self.status.send_if_modified(|status| {
            let known = status.failing.iter().any(|(failing, _)| *failing == chore);
            if !known && failures == 0 {
                return false;
            }
            status.failing.retain(|(failing, _)| *failing != chore);
            if failures > 0 {
                status.failing.push((chore, failures));
            }
            true
        });
    }
}
