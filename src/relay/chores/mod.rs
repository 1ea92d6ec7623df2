//! The chores beside the data path: measuring, noting, checkpoints, retention; each fails alone.
//!
//! All share one session. A chore that fails is tried again after a wait of its own and stops no
//! other; what costs the session costs the others a new one.

mod agenda;
mod checkpoint;
mod consumer_keys;
mod depth;
mod note;
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
use super::status::Status;
use crate::{
    config,
    metrics::{Chore, Metrics},
    outbox::{SESSION_SETTINGS, Upkeep},
    pg::{
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
    };
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
}

impl Chores {
    /// Does the next chore, or waits for its time.
    async fn turn(&mut self) {
        let seen = self.changes.borrow_and_update().clone();
        let Some(duty) = Duty::of(seen.phase) else {
            self.session = None;
            // The sender lives as long as this borrow, so the wait cannot fail.
            drop(self.changes.wait_for(|status| Duty::of(status.phase).is_some()).await);
            return;
        };
        if self.noted.as_deref() != Some(note::text_of(&seen).as_str()) {
            self.agenda.hurry(Chore::Note, Instant::now());
        }
        let (chore, due) = self.agenda.next(duty);
        if due > Instant::now() {
            self.wait(due).await;
            return;
        }
        let Some(session) = self.session().await else { return };
        let result = self.run(chore, &session, &seen).await;
        if result.as_ref().err().is_none_or(|error| error.class() != Class::SessionLost) {
            self.session = Some(session);
        }
        self.report(chore, result);
    }

    /// Waits until then, or until something has changed that a chore depends on.
    async fn wait(&mut self, due: Instant) {
        let noted = self.noted.clone().unwrap_or_default();
        let before = Duty::of(self.changes.borrow().phase);
        let session = self.session.as_ref();
        let ended = async {
            match session {
                Some(session) => session.closed().await,
                None => std::future::pending().await,
            }
        };
        let changed =
            |status: &Status| Duty::of(status.phase) != before || note::text_of(status) != noted;
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
                let text = note::write(session, seen).await?;
                self.noted = Some(text);
                Ok(())
            }
            Chore::Checkpoint => checkpoint::take(session, settings.retention).await,
            Chore::Retention => retention::run(session, settings.retention, metrics).await,
            Chore::ConsumerKeys => consumer_keys::forget(session).await,
        }
    }

    /// Counts and logs what became of a chore.
    fn report(&mut self, chore: Chore, result: Result<(), QueryError>) {
        let now = Instant::now();
        let name = chore.as_str();
        let error = match result {
            Ok(()) => {
                let failures = self.agenda.done(chore, now);
                self.metrics.chores.done(chore);
                if failures >= FAILURES_TOLD {
                    info!(chore = name, failures, "the chore works again");
                }
                return;
            }
            Err(error) => error,
        };
        let (failures, wait) = self.agenda.failed(chore, now);
        self.metrics.chores.failed(chore, failures);
        if failures == FAILURES_TOLD || failures.is_multiple_of(TOLD_AGAIN) {
            warn!(
                chore = name, %error, failures, hint = error.class().hint(),
                "a chore fails again and again: {}; trying again in {}",
                agenda::consequence(chore),
                humantime::format_duration(wait)
            );
        } else {
            debug!(chore = name, %error, failures, "a chore failed");
        }
    }

    /// The session of the chores; opens one when there is none.
    async fn session(&mut self) -> Option<Upkeep> {
        if let Some(session) = self.session.take().filter(|session| !session.is_closed()) {
            return Some(session);
        }
        let Settings { database, schema, relay, .. } = &self.settings;
        match connect(database, "upkeep", &SESSION_SETTINGS).await {
            Ok(connection) => {
                self.unconnected = 0;
                let connection = connection.measured(self.metrics.outbox.queries());
                Some(Upkeep::new(connection, schema.clone(), relay.clone()))
            }
            Err(error) => {
                self.unconnected += 1;
                if self.unconnected == FAILURES_TOLD {
                    warn!(
                        %error, hint = error.hint(),
                        "no session for measuring, checkpoints and retention; trying again"
                    );
                } else {
                    debug!(%error, "no session for the chores");
                }
                sleep(RECONNECT).await;
                None
            }
        }
    }
}
