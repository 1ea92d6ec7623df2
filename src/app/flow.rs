//! A flow: its settings, its sink, and the relay between the outbox and that sink.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use rustix::system::uname;
use tokio::{
    sync::{mpsc, watch},
    time::interval,
};
use tokio_util::sync::CancellationToken;
use tracing::warn;
use uuid::Uuid;

use super::{RunError, RunOptions};
use crate::{
    config::{self, Config, SinkKind},
    delivery::{DeliveryRules, Growth, RetryPolicy, WindowLimits},
    metrics::{Dependency, FlowMetrics, ProgramMetrics},
    nats::{self, ConnectionState, Connector, keep_connected},
    outbox::{Candidate, LETTER_BYTES_MAX},
    pg::schema::Schema,
    relay::{
        self, Relay,
        chores::Maintained,
        leadership::contract::Watched,
        report::{
            flows,
            status::{Counted, LinkStatus, Status},
        },
    },
    shutdown::Shutdown,
    sink::Sink,
    stdout,
    tasks::Tasks,
    unrouted,
    wire::{Mode, SubjectTemplate},
};

/// Limit of events in memory, as a multiple of the events that may be in flight. Events in memory
/// that are not in flight wait behind an earlier event of their key, or for their turn. With a
/// higher limit events leave the processor's cache before they are sent, which costs a sixth of the
/// relay's time.
const MEMORY_PER_IN_FLIGHT: usize = 2;

/// Messages that a scan of the stream may have in flight.
const SCAN_AHEAD: usize = 2048;

/// Longest time that the tasks beside a relay may take to end. Then the flow ends without them.
const TASKS_GRACE: Duration = Duration::from_secs(5);

/// Interval between two warnings while there is no connection to NATS.
const REMIND: Duration = Duration::from_secs(30);

/// A flow from the outbox to a log.
pub(super) struct Flow {
    config: Config,
    settings: relay::RelaySettings,
    pub(super) status: Arc<watch::Sender<Status>>,
    metrics: Arc<FlowMetrics>,
    pub(super) shutdown: Shutdown,
}

impl Flow {
    /// A flow that has not begun.
    ///
    /// # Errors
    /// [`RunError::Template`] when the route's subject is not a valid template.
    pub(super) fn new(
        config: Config,
        options: RunOptions,
        program: &ProgramMetrics,
        shutdown: Shutdown,
    ) -> Result<Self, RunError> {
        let template = SubjectTemplate::parse(&config.route.subject)?;
        let settings = settings(&config, options, template);
        let metrics = Arc::new(program.flow(&settings.relay));
        let counts = match config.route.sink {
            SinkKind::Nats | SinkKind::Stdout => Counted::Published,
            SinkKind::Unrouted => Counted::Unrouted,
        };
        // A sink without a broker cannot lose its connection.
        let nats = match config.route.sink {
            SinkKind::Nats => Status::starting().nats,
            SinkKind::Stdout | SinkKind::Unrouted => {
                metrics.dependencies.connected(Dependency::Nats);
                LinkStatus::Up
            }
        };
        let status = Status { nats, counts, ..Status::starting() };
        let status = Arc::new(watch::Sender::new(status));
        Ok(Self { config, settings, status, metrics, shutdown })
    }

    /// Verifies that the settings of the connection can work, before anything runs.
    ///
    /// # Errors
    /// [`RunError::Nats`] names the setting that cannot work.
    pub(super) async fn verify_settings(&self) -> Result<(), RunError> {
        if self.config.route.sink == SinkKind::Nats {
            Connector::new(&self.config.nats, String::new(), 1).await?;
        }
        Ok(())
    }

    /// The name of the relay.
    pub(super) fn name(&self) -> &str {
        &self.settings.relay
    }

    /// The flow as readiness, the admin pages and systemd see it.
    pub(super) fn shown(&self) -> flows::ObservedFlow {
        let (status, metrics) = (self.status.subscribe(), Arc::clone(&self.metrics));
        flows::ObservedFlow { route: self.name().to_owned(), status, metrics }
    }

    /// The flow as the chores maintain it.
    pub(super) fn maintained(&self) -> Maintained {
        let (status, metrics) = (Arc::clone(&self.status), Arc::clone(&self.metrics));
        Maintained { relay: self.name().to_owned(), status, metrics }
    }

    /// The flow as [`contract::watch`](relay::leadership::contract::watch) sees it, which verifies
    /// the outbox every minute.
    pub(super) fn watched(&self) -> Watched {
        Watched::new(self.settings.clone(), Arc::clone(&self.status))
    }

    /// Runs until asked to stop.
    ///
    /// # Errors
    /// [`RunError`]: a fault that only a person can repair. Servers that are down are waited for.
    pub(super) async fn run(&self) -> Result<(), RunError> {
        let tasks = Tasks::new();
        let result = Box::pin(self.relay(&tasks)).await;
        tasks.cancel();
        if let Err(unfinished) = tasks.finish(TASKS_GRACE).await {
            warn!(error = %unfinished, "some tasks of this route did not end in time after it stopped; the program no longer waits for them");
        }
        result
    }

    async fn relay(&self, tasks: &Tasks) -> Result<(), RunError> {
        let sink = match self.config.route.sink {
            SinkKind::Nats => Sink::Nats(self.nats_sink(tasks).await?),
            SinkKind::Stdout => {
                Sink::Stdout(stdout::StdoutSink::start().map_err(RunError::Stdout)?)
            }
            SinkKind::Unrouted => Sink::Unrouted(unrouted::UnroutedSink::default()),
        };
        let relay = Relay::new(
            self.settings.clone(),
            sink,
            Arc::clone(&self.status),
            Arc::clone(&self.metrics),
            self.shutdown.clone(),
        );
        Ok(Box::pin(relay.run()).await?)
    }

    /// The sink of a stream, and the tasks that keep it connected.
    async fn nats_sink(
        &self,
        tasks: &Tasks,
    ) -> Result<nats::JetStreamSink, nats::NatsConnectError> {
        let Self { config, settings, .. } = self;
        let name = format!("postrider/{}", settings.relay);
        // The buffer has room for the answers of a whole window and for the messages
        // that the server sends ahead in a scan.
        let capacity = (settings.limits.in_flight_events * 2).max(SCAN_AHEAD) + 64;
        let connector = Connector::new(&config.nats, name, capacity).await?;
        let (sender, connections) = mpsc::channel(1);
        let (standing, nats) = watch::channel(ConnectionState::Disconnected(None));
        let kept = tasks.cancelled();
        tasks.spawn("nats connection", async move {
            kept.run_until_cancelled(keep_connected(connector, sender, standing)).await;
        });
        let servers = config.nats.url.to_string();
        let shown = (Arc::clone(&self.status), Arc::clone(&self.metrics));
        tasks.spawn("nats", monitor_nats(nats, servers, shown, tasks.cancelled()));
        let (stream, template) = (config.stream.clone(), settings.template.clone());
        Ok(nats::JetStreamSink::new(
            connections,
            stream,
            template,
            settings.ack_timeout,
            Instant::now(),
        ))
    }
}

fn settings(
    config: &Config,
    options: RunOptions,
    template: SubjectTemplate,
) -> relay::RelaySettings {
    let size = |bytes: u64| usize::try_from(bytes).unwrap_or(usize::MAX);
    let in_flight_events = size(u64::from(config.relay.in_flight_events));
    let in_flight_bytes = size(config.relay.in_flight_bytes.0);
    let batch_bytes = size(config.relay.batch_bytes.0);
    let (stream, mode) = match config.route.sink {
        SinkKind::Nats => (config.stream.clone(), Mode::Binary),
        SinkKind::Stdout => (named(config, stdout::LOG), Mode::Structured),
        SinkKind::Unrouted => (named(config, unrouted::LOG), unrouted_mode(config)),
    };
    relay::RelaySettings {
        database: config.database.clone(),
        schema: Schema::from(&config.database.schema),
        relay: config.relay.name.as_str().to_owned(),
        candidate: Candidate {
            holder: format!("{}, process {}", host_name(), std::process::id()),
            instance: Uuid::new_v4(),
            process: relay::leadership::process::identity(),
            length: config.relay.lease.0,
        },
        stream,
        mode,
        template,
        route: config.route.name.clone(),
        filter: config.route.filter.clone(),
        source: config.relay.source.clone(),
        ack_timeout: config.nats.ack_timeout.0,
        limits: WindowLimits {
            in_flight_events,
            in_flight_bytes,
            memory_events: in_flight_events.saturating_mul(MEMORY_PER_IN_FLIGHT),
            memory_bytes: in_flight_bytes.saturating_add(batch_bytes),
        },
        batch_events: size(u64::from(config.relay.batch_events)),
        batch_bytes,
        letter_bytes_max: LETTER_BYTES_MAX,
        rules: rules(&config.route),
        on_denied: config.route.on_denied,
        poll_interval: config.relay.poll_interval.0,
        idle_interval: config.relay.idle_interval.0,
        wake: config.relay.wake,
        grace: config.shutdown.grace.0,
        rescan: options.rescan,
        recheck: Arc::default(),
        yielding: Arc::default(),
    }
}

/// Makes a section `[stream]` with the name of a log that is no stream, such as standard output.
fn named(config: &Config, log: &str) -> config::StreamConfig {
    config::StreamConfig { name: log.to_owned(), ..config.stream.clone() }
}

fn unrouted_mode(config: &Config) -> Mode {
    match config.relay.unrouted {
        config::Unrouted::Warn | config::Unrouted::Off => Mode::Counted,
        config::Unrouted::Dead => Mode::Refused,
    }
}

/// The name of this machine, or of the container.
fn host_name() -> String {
    uname().nodename().to_string_lossy().into_owned()
}

fn rules(route: &config::RouteConfig) -> DeliveryRules {
    DeliveryRules {
        on_dead: route.on_dead,
        retry: RetryPolicy {
            attempts: route.attempts,
            delay: route.delay.0,
            growth: match route.backoff {
                config::BackoffShape::Linear => Growth::Linear,
                config::BackoffShape::Exponential => Growth::Exponential,
            },
            jitter: route.jitter,
            max_delay: route.max_delay.0,
        },
    }
}

/// Logs every 30 s that there is no connection to NATS, and keeps that connection's state in the
/// status. A task of its own does so, because the relay itself may be waiting for Postgres.
async fn monitor_nats(
    standing: watch::Receiver<ConnectionState>,
    servers: String,
    (status, metrics): (Arc<watch::Sender<Status>>, Arc<FlowMetrics>),
    cancelled: CancellationToken,
) {
    let mut ticks = interval(Duration::from_secs(1));
    // The first connection may take a second before it is warned about.
    let mut remind_at = Instant::now() + Duration::from_secs(1);
    loop {
        tokio::select! {
            _ = ticks.tick() => {}
            () = cancelled.cancelled() => return,
        }
        let now = Instant::now();
        let seen = standing.borrow().clone();
        match seen {
            ConnectionState::Connected => {
                remind_at = now + Duration::from_secs(1);
                metrics.dependencies.connected(Dependency::Nats);
                status.send_if_modified(|status| {
                    let before = std::mem::replace(&mut status.nats, LinkStatus::Up);
                    before != LinkStatus::Up
                });
            }
            ConnectionState::Disconnected(why) if now >= remind_at => {
                remind_at = now + REMIND;
                metrics.dependencies.lost(Dependency::Nats);
                let (why, hint) = match why {
                    Some((why, hint)) => (format!(": {why}"), hint),
                    None => (String::new(), "is it up, and are nats.url and the login right?"),
                };
                let detail = format!("no connection to {servers}{why}");
                warn!(error = %detail, hint, "waiting for NATS");
                let hint = Some(hint.to_owned());
                status.send_modify(|status| status.nats = LinkStatus::Down { detail, hint });
            }
            ConnectionState::Disconnected(_) => {}
        }
    }
}
