//! Acquisition of a holding: a session, a schema that fits, the lease, the position.

use std::{
    borrow::Cow,
    sync::Arc,
    time::{Duration, Instant},
};

use thiserror::Error;
use tokio::time::sleep;
use tracing::warn;

use super::{
    resume::{Resumed, resume},
    standby::{Standby, keep_turning},
};
use crate::{
    clock,
    delivery::Backoff,
    outbox::{Outbox, SESSION_SETTINGS},
    pg::{
        connect::{ConnectError, connect},
        error::{Class, QueryError},
        migrate::{MigrateError, SchemaVersion},
        migrating::version_within,
    },
    relay::{RELEASE_MAX, Relay, RelayError, holding::Holding, report::status::blocker_of},
};

/// Waits between attempts to get a session.
const CONNECT: Backoff =
    Backoff { first: Duration::from_millis(100), longest: Duration::from_secs(2) };

/// Interval at which the same failure is logged again.
const REMIND: Duration = Duration::from_secs(30);

/// Reason for which there is no holding yet.
#[derive(Debug, Error)]
pub(in crate::relay) enum NotYet {
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
    /// Waits for a session, the lease and the position. `None` when asked to stop while waiting.
    pub(in crate::relay) async fn acquire_holding(
        &mut self,
    ) -> Result<Option<Holding>, RelayError> {
        let mut failures = 0;
        let mut reminded: Option<(String, Instant)> = None;
        loop {
            let shutdown = self.shutdown.clone();
            let heartbeat = self.report.heartbeat();
            let attempt = tokio::select! {
                attempt = self.try_acquire() => attempt?,
                never = keep_turning(&heartbeat) => never,
                () = shutdown.stopping() => return Ok(None),
            };
            let error = match attempt {
                Ok(holding) => return Ok(Some(holding)),
                Err(error) => error,
            };
            failures += 1;
            let text = error.to_string();
            let now = clock::now();
            self.report.turned(now);
            let hint = hint(&error);
            if reminded.as_ref().is_none_or(|(said, at)| *said != text || *at + REMIND <= now) {
                warn!(error = %text, hint = hint.as_deref(), "waiting for Postgres");
                reminded = Some((text.clone(), now));
            }
            let held_up = match &error {
                NotYet::Query(error) => blocker_of(error),
                NotYet::Connect(_) | NotYet::Migrate(_) | NotYet::Schema { .. } => None,
            };
            self.report.waits_for_postgres(text, hint.map(Cow::into_owned), held_up);
            tokio::select! {
                () = sleep(CONNECT.after(failures)) => {}
                () = shutdown.stopping() => return Ok(None),
            }
        }
    }

    async fn try_acquire(&mut self) -> Result<Result<Holding, NotYet>, RelayError> {
        let outbox = match self.open_outbox().await? {
            Ok(outbox) => outbox,
            Err(error) => return Ok(Err(error)),
        };
        self.report.session_opened();
        let acquired =
            match Standby::new(&self.settings, &self.report, &outbox).wait_for_lease().await {
                Ok(acquired) => acquired,
                Err(error) => return Ok(Err(error.into())),
            };
        let (term, taken_by) = (acquired.0.term, Arc::clone(&outbox));
        let Self { settings, report, log, .. } = self;
        let resumed = resume((settings, report), log, outbox, acquired).await;
        if matches!(resumed, Ok(Resumed::Foreign | Resumed::Refused(_)) | Err(_)) {
            // A lease that cannot be released ends by itself.
            drop(tokio::time::timeout(RELEASE_MAX, taken_by.release(term)).await);
        }
        match resumed {
            Ok(Resumed::Holding(holding)) => Ok(Ok(*holding)),
            Ok(Resumed::Foreign) => Err(RelayError::ForeignCluster),
            Ok(Resumed::Refused(text)) => Err(RelayError::Contract(text)),
            Ok(Resumed::Rescanned) => Box::pin(self.try_acquire()).await,
            Err(error) => Ok(Err(error)),
        }
    }

    /// Opens a session whose schema fits this binary.
    async fn open_outbox(&self) -> Result<Result<Arc<Outbox>, NotYet>, RelayError> {
        let settings = &self.settings;
        // Postgres ends a session that is cut off, and a standby then takes over. The timeout is so
        // long that the leader has stopped trusting its lease before.
        let silent = format!("{}s", settings.candidate.length.as_secs().max(10));
        let own = [("tcp_user_timeout", silent.as_str()), ("tcp_keepalives_idle", silent.as_str())];
        let session = [&SESSION_SETTINGS[..], &own].concat();
        let purpose = format!("relay/{}", settings.relay);
        let connection = match connect(&settings.database, &purpose, &session).await {
            Ok(connection) => connection.measured(self.report.metrics.outbox.queries()),
            Err(error) => return Ok(Err(error.into())),
        };
        let schema = settings.schema.as_str().to_owned();
        let after = settings.database.query_timeout.0;
        let asked = version_within(&connection, &settings.schema, after).await;
        let Some(asked) = asked else { return Ok(Err(QueryError::Timeout { after }.into())) };
        match asked {
            Ok(SchemaVersion::Current(_)) => {}
            Ok(SchemaVersion::Missing) => {
                return Ok(Err(NotYet::Schema { schema, state: "not there" }));
            }
            Ok(SchemaVersion::Behind { .. }) => {
                return Ok(Err(NotYet::Schema { schema, state: "older than this program" }));
            }
            Ok(SchemaVersion::OtherFunctions) => {
                let state = "without the functions of this program";
                return Ok(Err(NotYet::Schema { schema, state }));
            }
            Ok(SchemaVersion::NewerFunctions { program }) => {
                return Err(RelayError::NewerFunctions { schema, program });
            }
            Ok(SchemaVersion::Newer { have, supported }) => {
                return Err(RelayError::NewerSchema { schema, have, supported });
            }
            Err(error @ MigrateError::OldServer { .. }) => {
                return Err(RelayError::OldServer(error));
            }
            Err(error) => return Ok(Err(error.into())),
        }
        let of = (settings.relay.clone(), settings.filter.clone());
        let limits = Arc::clone(&self.row_limits);
        let outbox = Outbox::open(connection, settings.schema.clone(), of, limits).await;
        Ok(outbox.map_err(NotYet::from))
    }
}

fn hint(error: &NotYet) -> Option<Cow<'static, str>> {
    match error {
        NotYet::Connect(error) => error.hint().map(Cow::Borrowed),
        NotYet::Query(error) => error.hint(),
        NotYet::Migrate(error) => error.class().hint().map(Cow::Borrowed),
        NotYet::Schema { .. } => Class::Schema.hint().map(Cow::Borrowed),
    }
}
