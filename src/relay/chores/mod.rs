//! The chores beside the data path: measuring, noting, checkpoints, retention; each fails alone.
//!
//! All share one session. A chore that fails is tried again after a wait of its own and stops no
//! other; what costs the session costs the others a new one.

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

use tokio::{
    sync::watch,
    time::{sleep, sleep_until},
};
use tracing::{debug, info, warn};

use self::agenda::{Agenda, Duty};
pub(super) use self::depth::Standby;
use super::status::{Status, blocker_of};
use crate::{
    config,
    metrics::{Chore, Metrics},
    outbox::{SESSION_SETTINGS, Upkeep},
    pg::{
        blocking::Blocking,
        connect::connect,
        error::{Class, QueryError},
        schema::Schema,
    },
    shutdown::Shutdown,
};

/// Failures in a row after which a chore is logged: a single one is usually the server going away,
/// which the relay reports.
const FAILURES_TOLD: u32 = 3;

/// A chore that goes on failing is logged again after this many failures.
const TOLD_AGAIN: u32 = 60;

/// The wait before another session is tried.
const RECONNECT: Duration = Duration::from_secs(2);

/// What the chores work on.
#[derive(Debug, Clone)]
pub struct Settings {
    /// Where the outbox is.
    pub database: config::Database,
    /// Its schema.
    pub schema: Schema,
    /// The relay's name.
    pub relay: String,
    /// How long published rows stay.
    pub retention: Duration,
    /// How long resolved letters stay.
    pub letter_retention: Duration,
    /// How long the record of operators' acts stays.
    pub audit_retention: Duration,
}

/// Does the chores until asked to stop.
pub async fn run(
    settings: Settings,
    status: Arc<watch::Sender<Status>>,
    metrics: Arc<Metrics>,
    shutdown: Shutdown,
) {
    let changes = status.subscribe();
    let agenda = Agenda::new(Instant::now());
    let mut chores = Chores {
        settings,
        status,
        metrics,
        changes,
        agenda,
        noted: None,
        session: None,
        unconnected: 0,
        duty: None,
    };
    chores.status.send_modify(|status| status.relay.clone_from(&chores.settings.relay));
    loop {
        tokio::select! {
            () = chores.turn() => {}
            () = shutdown.stopping() => return,
        }
    }
}

/// The chores, and what they have of each other.
struct Chores {
    settings: Settings,
    status: Arc<watch::Sender<Status>>,
    metrics: Arc<Metrics>,
    changes: watch::Receiver<Status>,
    agenda: Agenda,
    /// What `postrider status` shows by now.
    noted: Option<String>,
    session: Option<Upkeep>,
    /// Failures in a row to get a session.
    unconnected: u32,
    /// The duty of the last turn.
    duty: Option<Duty>,
}

impl Chores {
    /// Does the next chore, or waits for its time.
    async fn turn(&mut self) {
        let seen = self.changes.borrow_and_update().clone();
        let duty = Duty::of(&seen);
        let is_new = self.duty != duty;
        self.duty = duty;
        let Some(duty) = duty else {
            self.session = None;
            // The sender lives as long as this borrow, so the wait cannot fail.
            drop(self.changes.wait_for(|status| Duty::of(status).is_some()).await);
            return;
        };
        if is_new {
            self.agenda.begin(duty, Instant::now());
        }
        if duty == Duty::Leading && self.noted.as_deref() != Some(note::summary(&seen).as_str()) {
            self.agenda.hurry(Chore::Note, Instant::now());
        }
        let (chore, due) = self.agenda.next(duty);
        if due > Instant::now() {
            self.wait(duty, due).await;
            return;
        }
        let Some(session) = self.session(duty).await else { return };
        let result = self.run(chore, &session, &seen).await;
        if result.as_ref().err().is_none_or(|error| error.class() != Class::SessionLost) {
            self.session = Some(session);
        }
        match &result {
            Ok(()) => self.unblocked(chore),
            Err(error) => self.blocked(chore, error),
        }
        self.report(duty, chore, result);
    }

    /// Waits until then, or until something has changed that a chore depends on.
    async fn wait(&mut self, duty: Duty, due: Instant) {
        let noted = self.noted.clone().unwrap_or_default();
        // A note that failed waits for its time, whatever there is to say.
        let may_note = duty == Duty::Leading && self.agenda.can_hurry(Chore::Note);
        let session = self.session.as_ref();
        let ended = async {
            match session {
                Some(session) => session.closed().await,
                None => std::future::pending().await,
            }
        };
        let changed = |status: &Status| {
            let is_news = may_note && note::summary(status) != noted;
            is_news || Duty::of(status) != Some(duty)
        };
        tokio::select! {
            () = sleep_until(due.into()) => {}
            _ = self.changes.wait_for(changed) => {}
            () = ended => self.session = None,
        }
    }

    async fn run(
        &mut self,
        chore: Chore,
        session: &Upkeep,
        seen: &Status,
    ) -> Result<(), QueryError> {
        let (settings, metrics) = (&self.settings, &self.metrics);
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
                positions::find_abandoned(session, settings, &self.status, metrics).await?;
                depth::measure_losses(session, &self.status, metrics).await
            }
        }
    }

    /// Names the session whose lock a chore waited for, if that is why it failed.
    fn blocked(&self, chore: Chore, error: &QueryError) {
        // A healing keeps the position, and nobody should end it.
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

    /// The chore that waited for a lock works again.
    fn unblocked(&self, chore: Chore) {
        self.status.send_if_modified(|status| {
            let is_over = status.blocker.as_ref().is_some_and(|(met_by, _)| *met_by == chore);
            if is_over {
                status.blocker = None;
            }
            is_over
        });
    }

    /// Counts and logs what became of a chore.
    fn report(&mut self, duty: Duty, chore: Chore, result: Result<(), QueryError>) {
        let now = Instant::now();
        let name = chore.as_str();
        let error = match result {
            Ok(()) => {
                let failures = self.agenda.done(duty, chore, now);
                self.metrics.chores.done(chore);
                self.failing(chore, 0);
                if failures >= FAILURES_TOLD {
                    info!(chore = name, failures, "the chore works again");
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
        // While there is no right to run the relay says what it waits for.
        let is_news = failures == FAILURES_TOLD || failures.is_multiple_of(TOLD_AGAIN);
        if is_news && duty != Duty::Waiting {
            warn!(
                chore = name, %error, failures, hint = error.hint().as_deref(),
                "a chore fails again and again: {}; trying again in {}",
                agenda::consequence(chore),
                humantime::format_duration(wait)
            );
        } else {
            debug!(chore = name, %error, failures, "a chore failed");
        }
    }

    /// Keeps the status true about the chores that fail.
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

    /// The session of the chores; opens one when there is none.
    async fn session(&mut self, duty: Duty) -> Option<Upkeep> {
        if let Some(open) = self.session.take().filter(|session| !session.is_closed()) {
            return Some(open);
        }
        match self.open().await {
            Ok(open) => {
                self.unconnected = 0;
                Some(open)
            }
            Err((error, hint)) => {
                self.unconnected += 1;
                // What is missing is not known any more.
                self.status.send_if_modified(|status| {
                    !std::mem::take(&mut status.missing_grants).is_empty()
                });
                // While there is no right to run the relay says what it waits for.
                if self.unconnected == FAILURES_TOLD && duty != Duty::Waiting {
                    warn!(
                        error,
                        hint, "no session for measuring, checkpoints and retention; trying again"
                    );
                } else {
                    debug!(error, "no session for the chores");
                }
                sleep(RECONNECT).await;
                None
            }
        }
    }

    async fn open(&self) -> Result<Upkeep, (String, Option<&'static str>)> {
        let Settings { database, schema, relay, .. } = &self.settings;
        let connection = connect(database, &format!("upkeep/{relay}"), &SESSION_SETTINGS)
            .await
            .map_err(|error| (error.to_string(), error.hint()))?;
        let connection = connection.measured(self.metrics.outbox.queries());
        Ok(Upkeep::new(connection, schema.clone(), relay.clone()))
    }
}
