//! Getting the right to run: a session, a schema that fits, the lock, the position.

use std::{
    collections::HashSet,
    sync::Arc,
    time::{Duration, Instant},
};

use thiserror::Error;
use tokio::time::sleep;
use tracing::{info, warn};

use super::{
    Relay, RelayError, chores,
    holding::Holding,
    letters,
    reader::{Pace, Reader},
    status::{Heartbeat, Link, Phase},
};
use crate::{
    config::Wake,
    delivery::{Backoff, Delivery, Earlier, Resume, StreamMark},
    failpoint,
    metrics::Dependency,
    outbox::{Acquired, Authority, Course, Origin, Outbox, SESSION_SETTINGS},
    pg::{
        connect::{ConnectError, connect},
        error::{Class, QueryError},
        migrate::{MigrateError, SchemaVersion, version},
    },
};

/// The waits between attempts to get a session.
const CONNECT: Backoff =
    Backoff { first: Duration::from_millis(100), longest: Duration::from_secs(2) };

/// How often a standby looks whether the lock is free. With what it measures that is less than one
/// statement a second, over one session.
const STANDBY: Duration = Duration::from_millis(1100);

/// How often the same trouble is logged again.
const REMIND: Duration = Duration::from_secs(30);

/// Why there is no holding yet.
#[derive(Debug, Error)]
enum NotYet {
    #[error("{0}")]
    Connect(#[from] ConnectError),
    #[error("{0}")]
    Query(#[from] QueryError),
    #[error("{0}")]
    Migrate(#[from] MigrateError),
    #[error("the schema \"{schema}\" is {state}; run `postrider migrate`")]
    Schema { schema: String, state: &'static str },
}

impl Relay {
    /// Waits for the right to run this relay. `None` when asked to stop while waiting.
    pub(super) async fn hold(&mut self) -> Result<Option<Holding>, RelayError> {
        let mut failures = 0;
        let mut reminded: Option<(String, Instant)> = None;
        loop {
            let shutdown = self.shutdown.clone();
            let heartbeat = self.heartbeat.clone();
            let attempt = tokio::select! {
                attempt = self.try_hold() => attempt?,
                never = keep_turning(&heartbeat) => never,
                () = shutdown.stopping() => return Ok(None),
            };
            let error = match attempt {
                Ok(holding) => return Ok(Some(holding)),
                Err(error) => error,
            };
            failures += 1;
            let text = error.to_string();
            let now = Instant::now();
            self.heartbeat.turn(now);
            if reminded.as_ref().is_none_or(|(said, at)| *said != text || *at + REMIND <= now) {
                warn!(error = %text, hint = hint(&error), "waiting for Postgres");
                reminded = Some((text.clone(), now));
            }
            self.metrics.dependencies.lost(Dependency::Postgres);
            self.status.send_modify(|status| status.postgres = Link::Down { detail: text });
            tokio::select! {
                () = sleep(CONNECT.after(failures)) => {}
                () = shutdown.stopping() => return Ok(None),
            }
        }
    }

    async fn try_hold(&mut self) -> Result<Result<Holding, NotYet>, RelayError> {
        let outbox = match self.open().await? {
            Ok(outbox) => outbox,
            Err(error) => return Ok(Err(error)),
        };
        self.metrics.dependencies.connected(Dependency::Postgres);
        self.status.send_modify(|status| status.postgres = Link::Up);
        if let Err(error) = self.wait_for_lock(&outbox).await {
            return Ok(Err(error.into()));
        }
        match self.take(outbox).await {
            Ok(Taken::Holding(holding)) => Ok(Ok(*holding)),
            Ok(Taken::Foreign) => Err(RelayError::ForeignCluster),
            Ok(Taken::Rescanned) => Box::pin(self.try_hold()).await,
            Err(error) => Ok(Err(error.into())),
        }
    }

    /// Opens a session whose schema fits this binary.
    async fn open(&self) -> Result<Result<Arc<Outbox>, NotYet>, RelayError> {
        let settings = &self.settings;
        let connection = match connect(&settings.database, "relay", &SESSION_SETTINGS).await {
            Ok(connection) => connection.measured(self.metrics.outbox.queries()),
            Err(error) => return Ok(Err(error.into())),
        };
        let schema = settings.schema.as_str().to_owned();
        match version(&connection.client, &settings.schema).await {
            Ok(SchemaVersion::Current(_)) => {}
            Ok(SchemaVersion::Missing) => {
                return Ok(Err(NotYet::Schema { schema, state: "not there" }));
            }
            Ok(SchemaVersion::Behind { .. }) => {
                return Ok(Err(NotYet::Schema { schema, state: "older than this program" }));
            }
            Ok(SchemaVersion::Newer { have, know }) => {
                return Err(RelayError::NewerSchema { schema, have, know });
            }
            Err(error) => return Ok(Err(error.into())),
        }
        let outbox =
            Outbox::open(connection, settings.schema.clone(), settings.relay.clone()).await;
        Ok(outbox.map_err(NotYet::from))
    }

    async fn wait_for_lock(&mut self, outbox: &Outbox) -> Result<(), QueryError> {
        let mut said = false;
        let mut figures = chores::Standby::default();
        while !outbox.lock().await? {
            if !said {
                said = true;
                let holder = outbox.holder().await?;
                let (pid, name) = holder.map_or((0, None), |h| (h.pid, h.application_name));
                info!(
                    pid,
                    holder = name.as_deref().unwrap_or("unknown"),
                    "another instance runs this relay; waiting for it to end"
                );
                self.metrics.dependencies.standing_by();
                self.status.send_modify(|status| {
                    status.phase = Phase::Standby;
                    status.leader = name;
                });
            }
            figures.measure(outbox, &self.status, &self.metrics).await;
            sleep(STANDBY).await;
        }
        self.metrics.dependencies.leading();
        Ok(())
    }

    async fn take(&mut self, outbox: Arc<Outbox>) -> Result<Taken, QueryError> {
        let settings = &self.settings;
        let acquired = outbox.acquire(&settings.holder).await?;
        failpoint::pass("held");
        if acquired.origin == Origin::AnotherCluster {
            if !settings.rescan {
                return Ok(Taken::Foreign);
            }
            let pending = outbox.rescan(acquired.term).await?;
            warn!(pending, "accepted a restored database: what was not settled is published");
            return Ok(Taken::Rescanned);
        }
        if settings.wake == Wake::Gated && acquired.notifies {
            outbox.listen().await?;
        }
        let Acquired { term, position, fence, stream, stream_identity, course, notifies, .. } =
            acquired;
        let lettered = match course {
            Course::Onward => HashSet::new(),
            Course::Again => outbox.lettered().await?,
        };
        // What is known of another stream says nothing about this one.
        let ours = stream_identity.filter(|(name, _)| *name == settings.stream.name);
        let stream = if ours.is_some() { stream } else { StreamMark::default() };
        info!(term, stream_seq = stream.acked, "relaying");
        let now = Instant::now();
        let created = ours.map(|(_, created)| created).unwrap_or_default();
        let earlier = if term == 1 { Earlier::None } else { Earlier::Some { drawn: fence } };
        let look_above = (earlier != Earlier::None).then_some(stream.floor);
        self.broker.begin(created, look_above, now);
        let pace = Pace {
            poll_interval: settings.poll_interval,
            idle_interval: settings.idle_interval,
            notified: settings.wake == Wake::Gated && notifies,
        };
        let letters = letters::Pace::new(pace, settings.rules.retry.max_delay, now);
        let resume = Resume { position, lettered, stream, earlier };
        let delivery = Delivery::resume(resume, settings.limits, settings.rules, now);
        let authority = Authority {
            term,
            stream: settings.stream.name.clone(),
            stream_created: self.broker.created().to_owned(),
            on_dead: settings.rules.on_dead,
            letter_bytes_max: settings.letter_bytes_max,
        };
        self.status.send_modify(|status| {
            status.phase = Phase::Relaying;
            status.term = term;
        });
        let reader = Reader::new(pace, now);
        let holding = Holding::new(outbox, authority, delivery, (reader, letters), fence);
        Ok(Taken::Holding(Box::new(holding)))
    }
}

/// Waiting is a way of being alive.
async fn keep_turning<T>(heartbeat: &Heartbeat) -> T {
    loop {
        heartbeat.turn(Instant::now());
        sleep(STANDBY).await;
    }
}

/// What taking the position came to.
enum Taken {
    Holding(Box<Holding>),
    /// The position was made in another cluster, and nobody said that this is fine.
    Foreign,
    /// It was, and everything is as if the relay were new; with another session.
    Rescanned,
}

fn hint(error: &NotYet) -> Option<&'static str> {
    match error {
        NotYet::Connect(error) => error.hint(),
        NotYet::Query(error) => error.class().hint(),
        NotYet::Migrate(error) => error.class().hint(),
        NotYet::Schema { .. } => Class::Schema.hint(),
    }
}
