//! The composition root: builds every part from the configuration, owns start and stop order.

mod reload;

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

pub use reload::Reloading;
use rustix::system::uname;
use thiserror::Error;
use tokio::{
    signal::unix::{SignalKind, signal},
    sync::{mpsc, watch},
    time::interval,
};
use tracing::{info, warn};
use uuid::Uuid;

use crate::{
    admin,
    config::{self, Config, SinkKind, value::Listen},
    delivery::{Growth, Limits, OnDead, Policy, Rules},
    findings::Finding,
    metrics::{Dependency, Metrics},
    nats::{self, Connector, Standing, keep_connected},
    outbox::{Candidate, LETTER_BYTES_MAX},
    pg::schema::Schema,
    relay::{
        self, Relay, RelayError, chores,
        outage::Outages,
        status::{Link, Status},
    },
    shutdown::Shutdown,
    sink::Sink,
    stdout, systemd,
    tasks::Tasks,
    wire::{Mode, SubjectTemplate, TemplateError},
};

/// Events in memory for each one that may be on its way: the rest waits behind its key, or for its turn.
/// More would leave the processor's cache before they go, which costs a sixth of the relay's time.
const MEMORY_PER_IN_FLIGHT: usize = 2;

/// Messages that a scan of the stream may have on their way.
const SCAN_AHEAD: usize = 2048;

/// How long the tasks beside the relay may take to end.
const TASKS_GRACE: Duration = Duration::from_secs(5);

/// How often systemd is told how it goes.
const NOTIFY_INTERVAL: Duration = Duration::from_secs(5);

/// How often it is looked whether events flow.
const OUTAGE_INTERVAL: Duration = Duration::from_millis(500);

/// How often it is said again that NATS is waited for.
const REMIND: Duration = Duration::from_secs(30);

/// How long the relay's loop may not turn before systemd hears nothing of us any more.
const STUCK: Duration = Duration::from_secs(15);

/// What the command line adds to the configuration.
#[derive(Debug, Clone, Copy, Default)]
pub struct Options {
    /// Accept a database that was restored into another cluster.
    pub rescan: bool,
}

/// Why the program ended by itself.
#[derive(Debug, Error)]
pub enum RunError {
    /// The settings of NATS cannot work.
    #[error(transparent)]
    Nats(#[from] nats::ConnectError),
    /// `[route] subject` is no template.
    #[error("route.subject: {0}")]
    Template(#[from] TemplateError),
    /// Standard output cannot be written to.
    #[error("route.sink = \"stdout\": cannot write to standard output: {0}")]
    Stdout(std::io::Error),
    /// The system refuses to tell us of signals.
    #[error("cannot register for signals: {0}")]
    Signals(std::io::Error),
    /// The relay needs a person.
    #[error(transparent)]
    Relay(#[from] RelayError),
}

/// Runs everything until a signal asks to stop.
///
/// # Errors
/// [`RunError`]: what only a person can mend. Servers that are down are waited for.
pub async fn run(config: Config, options: Options, reloading: Reloading) -> Result<(), RunError> {
    let shutdown = Shutdown::new();
    let signals = shutdown.obey_signals().map_err(RunError::Signals)?;
    let hangups = signal(SignalKind::hangup()).map_err(RunError::Signals)?;
    let metrics = Arc::new(Metrics::new());
    let status = Arc::new(watch::Sender::new(Status::starting()));
    let template = SubjectTemplate::parse(&config.route.subject)?;
    let settings = settings(&config, options, template);

    let tasks = Tasks::new();
    let told = (Arc::clone(&status), Arc::clone(&metrics));
    let sink = match config.route.sink {
        SinkKind::Nats => Sink::Nats(nats_sink(&config, &settings, told, &tasks).await?),
        SinkKind::Stdout => Sink::Stdout(stdout::Sink::start().map_err(RunError::Stdout)?),
    };
    // It ends by itself only at a second signal.
    let listening = tasks.cancelled();
    tasks.spawn("signals", async move {
        listening.run_until_cancelled(signals).await;
    });
    if let Listen::Address(address) = config.admin.listen {
        let shown = (status.subscribe(), Arc::clone(&metrics));
        let hosts = config.admin.hosts.clone();
        // The first attempt is made at once, so that a listener is there when we say that we are ready.
        let listener = admin::bind(address).await;
        // The admin page outlives the relay: it shows how the stop goes.
        tasks.spawn("admin", admin::serve(listener, address, hosts, shown, tasks.cancelled()));
    }
    let obeyed = reload::obey(hangups, reloading, config.clone(), Arc::clone(&metrics));
    let reloads = tasks.cancelled();
    tasks.spawn("reload", async move {
        reloads.run_until_cancelled(obeyed).await;
    });
    let upkeep = chores::Settings {
        database: config.database.clone(),
        schema: settings.schema.clone(),
        relay: settings.relay.clone(),
        retention: config.relay.retention.0,
        letter_retention: config.relay.letter_retention.0,
        audit_retention: config.relay.audit_retention.0,
    };
    let upkeep = chores::run(upkeep, Arc::clone(&status), Arc::clone(&metrics), shutdown.clone());
    tasks.spawn("chores", upkeep);
    let watched = relay::contract::watch(settings.clone(), Arc::clone(&status), shutdown.clone());
    tasks.spawn("contract", watched);
    tasks.spawn("outages", tell_of_outages(status.subscribe(), tasks.cancelled()));
    tasks.spawn("systemd", tell_systemd(status.subscribe(), tasks.cancelled()));
    systemd::ready();

    let relay = Relay::new(settings, sink, Arc::clone(&status), metrics, shutdown.clone());
    let result = Box::pin(relay.run()).await;
    systemd::stopping();
    shutdown.stop_now();
    tasks.cancel();
    if let Err(unfinished) = tasks.finish(TASKS_GRACE).await {
        warn!(error = %unfinished, "stopping without them");
    }
    Ok(result?)
}

/// The sink of a stream, and the tasks that keep it connected.
async fn nats_sink(
    config: &Config,
    settings: &relay::Settings,
    told: (Arc<watch::Sender<Status>>, Arc<Metrics>),
    tasks: &Tasks,
) -> Result<nats::Sink, nats::ConnectError> {
    let name = format!("postrider/{}", settings.relay);
    // Room for the answers of a whole window, and for what a scan of the stream sends ahead.
    let capacity = (settings.limits.in_flight_events * 2).max(SCAN_AHEAD) + 64;
    let connector = Connector::new(&config.nats, name, capacity).await?;
    let (sender, connections) = mpsc::channel(1);
    let (standing, nats) = watch::channel(Standing::Disconnected(None));
    let kept = tasks.cancelled();
    tasks.spawn("nats connection", async move {
        kept.run_until_cancelled(keep_connected(connector, sender, standing)).await;
    });
    let servers = config.nats.url.to_string();
    tasks.spawn("nats", tell_of_nats(nats, servers, told, tasks.cancelled()));
    let (stream, template) = (config.stream.clone(), settings.template.clone());
    Ok(nats::Sink::new(connections, stream, template, settings.ack_timeout, Instant::now()))
}

fn settings(config: &Config, options: Options, template: SubjectTemplate) -> relay::Settings {
    let size = |bytes: u64| usize::try_from(bytes).unwrap_or(usize::MAX);
    let in_flight_events = size(u64::from(config.relay.in_flight_events));
    let in_flight_bytes = size(config.relay.in_flight_bytes.0);
    let batch_bytes = size(config.relay.batch_bytes.0);
    let (stream, mode) = match config.route.sink {
        SinkKind::Nats => (config.stream.clone(), Mode::Binary),
        SinkKind::Stdout => {
            let name = stdout::LOG.to_owned();
            (config::Stream { name, ..config.stream.clone() }, Mode::Structured)
        }
    };
    relay::Settings {
        database: config.database.clone(),
        schema: Schema::from(&config.database.schema),
        relay: config.relay.name.as_str().to_owned(),
        candidate: Candidate {
            holder: format!("{}, process {}", host_name(), std::process::id()),
            instance: Uuid::new_v4(),
            process: relay::process::identity(),
            length: config.relay.lease.0,
        },
        stream,
        mode,
        template,
        source: config.relay.source.clone(),
        ack_timeout: config.nats.ack_timeout.0,
        limits: Limits {
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
    }
}

/// The name of this machine, or of the container.
fn host_name() -> String {
    uname().nodename().to_string_lossy().into_owned()
}

fn rules(route: &config::Route) -> Rules {
    Rules {
        on_dead: match route.on_dead {
            config::OnDead::Hold => OnDead::Hold,
            config::OnDead::Skip => OnDead::Skip,
        },
        retry: Policy {
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

/// Tells systemd how it goes, and that the loop turns; says nothing once it does not.
async fn tell_systemd(
    status: watch::Receiver<Status>,
    cancelled: tokio_util::sync::CancellationToken,
) {
    let every = systemd::watchdog_interval().map_or(NOTIFY_INTERVAL, |watchdog| watchdog / 2);
    let mut ticks = interval(every.min(NOTIFY_INTERVAL));
    let mut before = (Instant::now(), 0);
    loop {
        tokio::select! {
            _ = ticks.tick() => {}
            () = cancelled.cancelled() => return,
        }
        let now = Instant::now();
        let seen = status.borrow().clone();
        if seen.last_turn.age(now) < STUCK {
            systemd::alive();
        }
        let seconds = now.duration_since(before.0).as_secs_f64().max(0.001);
        let published = u32::try_from(seen.published_total - before.1).unwrap_or(u32::MAX);
        let rate = f64::from(published) / seconds;
        before = (now, seen.published_total);
        let findings = seen.findings(now);
        let worst = findings
            .first()
            .map(|Finding { code, cause, next, .. }| {
                format!("{}: {cause}; next: {next} | ", code.as_str())
            })
            .unwrap_or_default();
        systemd::status(&format!(
            "{}, {worst}{rate:.0} msg/s, lag {:.1} s, backlog {}, dlq {}",
            seen.phase.as_str(),
            seen.measured.oldest_seconds(now),
            seen.measured.depth.backlog(),
            seen.measured.depth.dead
        ));
    }
}

/// Says when an outage is over how long it was, and how many events waited.
async fn tell_of_outages(
    status: watch::Receiver<Status>,
    cancelled: tokio_util::sync::CancellationToken,
) {
    let mut ticks = interval(OUTAGE_INTERVAL);
    let mut outages = Outages::default();
    loop {
        tokio::select! {
            _ = ticks.tick() => {}
            () = cancelled.cancelled() => return,
        }
        let now = Instant::now();
        let seen = status.borrow().clone();
        // Once the database answers again the figures are fresh: those count too.
        let in_memory = u64::try_from(seen.waiting + seen.in_flight).unwrap_or(u64::MAX);
        let waiting = seen.measured.depth.backlog().max(in_memory);
        if let Some((outage, took)) = outages.observe(&seen.findings(now), waiting, now) {
            let codes: Vec<_> = outage.codes.iter().map(|code| code.as_str()).collect();
            info!(
                causes = codes.join(", "),
                waited_at_least = outage.waited_at_least.max(waiting),
                "the outage is over after {}",
                humantime::format_duration(Duration::from_secs(took.as_secs()))
            );
        }
    }
}

/// Says now and then that NATS is waited for, and keeps its line in the status, also while the relay
/// itself waits for Postgres.
async fn tell_of_nats(
    standing: watch::Receiver<Standing>,
    servers: String,
    (status, metrics): (Arc<watch::Sender<Status>>, Arc<Metrics>),
    cancelled: tokio_util::sync::CancellationToken,
) {
    let mut ticks = interval(Duration::from_secs(1));
    // The first connection takes a moment; nobody needs to hear of that.
    let mut remind_at = Instant::now() + Duration::from_secs(1);
    loop {
        tokio::select! {
            _ = ticks.tick() => {}
            () = cancelled.cancelled() => return,
        }
        let now = Instant::now();
        let seen = standing.borrow().clone();
        match seen {
            Standing::Connected => {
                remind_at = now + Duration::from_secs(1);
                metrics.dependencies.connected(Dependency::Nats);
                status.send_if_modified(|status| {
                    let before = std::mem::replace(&mut status.nats, Link::Up);
                    before != Link::Up
                });
            }
            Standing::Disconnected(why) if now >= remind_at => {
                remind_at = now + REMIND;
                metrics.dependencies.lost(Dependency::Nats);
                let (why, hint) = match why {
                    Some((why, hint)) => (format!(": {why}"), hint),
                    None => (String::new(), "is it up, and are nats.url and the login right?"),
                };
                let detail = format!("no connection to {servers}{why}");
                warn!(error = %detail, hint, "waiting for NATS");
                status.send_modify(|status| status.nats = Link::Down { detail });
            }
            Standing::Disconnected(_) => {}
        }
    }
}
