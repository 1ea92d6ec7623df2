//! The configuration tree: every key, its default, its unit and what happens at its bound.

pub mod bounds;
mod changes;
pub mod error;
mod fallback;
pub mod file;
mod keys;
pub mod latest;
mod layers;
pub mod libpq;
pub mod load;
pub mod login;
mod mismatch;
pub mod name;
mod origin;
mod program;
pub mod reload;
mod resolve;
pub mod routes;
pub mod secret;
mod secret_files;
mod unknown;
pub mod value;
mod warnings;

use std::time::Duration;

use serde::{Deserialize, Deserializer, Serialize, Serializer};

use crate::{
    delivery::OnDead,
    event::{Filter, Pattern, Rules},
};
use latest::Latest;
use libpq::Libpq;
use name::{RelayName, SchemaName};
use secret::{Secret, SecretUrl};
use value::{ByteSize, HumanDuration, parse_text};

pub use program::{AdminConfig, LogConfig, LogFormat, ShutdownConfig};

/// The whole content of `postrider.toml`.
#[derive(Debug, Clone, Default, Deserialize, Serialize)]
#[serde(default, deny_unknown_fields)]
pub struct Config {
    /// Address and timeouts of the database with the outbox.
    pub database: DatabaseConfig,
    /// Address and login of the broker.
    pub nats: NatsConfig,
    /// The JetStream stream that takes the events.
    pub stream: StreamConfig,
    /// How the relay reads and publishes.
    pub relay: RelayConfig,
    /// Filter, destination and retry policy of the events.
    pub route: RouteConfig,
    /// How long the program may take to stop.
    pub shutdown: ShutdownConfig,
    /// The HTTP listener for health and metrics.
    pub admin: AdminConfig,
    /// Level and format of the log.
    pub log: LogConfig,
}

/// `[database]`: where the outbox is.
#[derive(Debug, Clone, Deserialize, Serialize)]
#[serde(default, deny_unknown_fields)]
pub struct DatabaseConfig {
    /// A `postgresql://` URL of the primary, or a `key=value` connection string of libpq. Required,
    /// here or in `url_file`; `DATABASE_URL` is read when neither is set, and libpq's `PG*`
    /// variables complete what it leaves open.
    pub url: SecretUrl,
    /// A file that contains the URL, so that the password is not in `postrider.toml`. A relative
    /// name is searched in `$CREDENTIALS_DIRECTORY`, in `/run/secrets`, then beside the file that
    /// sets this key.
    pub url_file: Option<String>,
    /// The schema that `postrider migrate` creates: up to 40 lower-case letters, digits and `_`.
    /// Default `postrider`. Change it when two outboxes share a database.
    pub schema: SchemaName,
    /// How long connecting may take, with TLS and authentication. Default `5s`; raise it when the
    /// database is far away. See [`bounds::CONNECT_TIMEOUT`].
    pub connect_timeout: HumanDuration,
    /// How long one statement may take before it is given up and the connection replaced. Default
    /// `5s`; raise it when the database stalls for longer, as at a slow checkpoint. See
    /// [`bounds::QUERY_TIMEOUT`].
    pub query_timeout: HumanDuration,
    /// The environment variables of libpq, which complete what the URL leaves open.
    #[serde(skip)]
    pub libpq: Libpq,
    /// Replacement of this section by a reload; see [`DatabaseConfig::current`].
    #[serde(skip)]
    pub latest: Latest<Self>,
}

impl Default for DatabaseConfig {
    fn default() -> Self {
        Self {
            url: SecretUrl::default(),
            url_file: None,
            schema: SchemaName::default(),
            connect_timeout: HumanDuration(Duration::from_secs(5)),
            query_timeout: HumanDuration(Duration::from_secs(5)),
            libpq: Libpq::default(),
            latest: Latest::default(),
        }
    }
}

/// `[nats]`: address of the broker, and our login.
#[derive(Debug, Clone, Deserialize, Serialize)]
#[serde(default, deny_unknown_fields)]
pub struct NatsConfig {
    /// A `nats://` or `tls://` URL, or several of one cluster separated by commas; never empty
    /// after [`Config::load`]. It may contain a login, `user:password@` or `token@`. Required, here
    /// or in `url_file`; `NATS_URL` is read when neither is set.
    pub url: SecretUrl,
    /// A file that contains the URL; searched in the same places as `database.url_file`.
    pub url_file: Option<String>,
    /// A `.creds` file (JWT and seed). At most one of `creds_file`, `user`, `token`, `nkey_file`
    /// and the login in `url` says who we are.
    pub creds_file: Option<String>,
    /// A user name for the broker; its password is in `password` or `password_file`.
    pub user: Option<String>,
    /// The password that goes with `user`.
    pub password: Option<Secret>,
    /// A file that contains the password of `user`.
    pub password_file: Option<String>,
    /// A token by which the broker knows us.
    pub token: Option<Secret>,
    /// A file that contains the token for the broker.
    pub token_file: Option<String>,
    /// A file that contains an nkey seed.
    pub nkey_file: Option<String>,
    /// A PEM file with the authorities to trust, instead of the system's. With it, or with
    /// `tls_cert`, the connection is encrypted or there is none.
    pub tls_ca: Option<String>,
    /// A PEM file with our client certificate, with `tls_key`.
    pub tls_cert: Option<String>,
    /// A PEM file with the key of `tls_cert`.
    pub tls_key: Option<String>,
    /// Whether the TLS handshake comes before the server's first message. Default `false`; it must
    /// be what the server's `handshake_first` says. With it the connection is encrypted or there is
    /// none.
    pub tls_first: bool,
    /// The JetStream domain that has the stream, when it is not that of the server we connect to: a
    /// hub behind a leaf node, say. Acknowledgements of another domain do not count.
    pub domain: Option<String>,
    /// The prefix of requests to JetStream, for a stream of another account that exports its API
    /// under that prefix. In place of `domain`. Default `$JS.API`.
    pub api_prefix: Option<String>,
    /// How long connecting may take, with TLS and login. Default `5s`. See
    /// [`bounds::CONNECT_TIMEOUT`].
    pub connect_timeout: HumanDuration,
    /// How often a silent connection is probed; it is given up after two unanswered probes. Default
    /// `5s`; raise it on a link that stalls for longer. See [`bounds::PING_INTERVAL`].
    pub ping_interval: HumanDuration,
    /// How long a publish may stay unanswered before it is sent again with the same id. Default
    /// `5s`; raise it when the broker is slow but alive. See [`bounds::ACK_TIMEOUT`].
    pub ack_timeout: HumanDuration,
    /// Replacement of this section by a reload; see [`NatsConfig::current`].
    #[serde(skip)]
    pub latest: Latest<Self>,
}

impl Default for NatsConfig {
    fn default() -> Self {
        Self {
            url: SecretUrl::default(),
            url_file: None,
            creds_file: None,
            user: None,
            password: None,
            password_file: None,
            token: None,
            token_file: None,
            nkey_file: None,
            tls_ca: None,
            tls_cert: None,
            tls_key: None,
            tls_first: false,
            domain: None,
            api_prefix: None,
            connect_timeout: HumanDuration(Duration::from_secs(5)),
            ping_interval: HumanDuration(Duration::from_secs(5)),
            ack_timeout: HumanDuration(Duration::from_secs(5)),
            latest: Latest::default(),
        }
    }
}

/// Minimum duplicate window of the broker: two unanswered attempts and the wait between them, so
/// that an immediate resend is deduplicated. Older events are scanned for in the stream before they
/// are sent again.
pub fn duplicate_window_needed(ack_timeout: Duration) -> Duration {
    const WAIT: Duration = Duration::from_secs(1);
    ack_timeout.saturating_mul(2).saturating_add(WAIT)
}

/// `[stream]`: the JetStream stream that takes the events.
#[derive(Debug, Clone, Deserialize, Serialize)]
#[serde(default, deny_unknown_fields)]
pub struct StreamConfig {
    /// The stream's name, at most 255 bytes without `.`, `*`, `>`, `/`, `\\` and blanks. Required.
    pub name: String,
    /// The subjects that it captures. Required with `create`; else, when given, the existing stream
    /// must capture them.
    pub subjects: Vec<String>,
    /// Create the stream when it does not exist: file storage, `discard=new`, direct access. An
    /// existing stream is never changed. Default `false`, because streams often belong to others.
    pub create: bool,
    /// Copies that a NATS cluster keeps, used when the stream is created. Default 1; 3 survives the
    /// loss of a server. See [`bounds::REPLICAS`].
    pub replicas: u8,
    /// How long the broker remembers message ids and so drops a repeated publish, used when the
    /// stream is created. Default `10m`; costs about 140 bytes an event of the window in the
    /// broker's memory. See [`bounds::DUPLICATE_WINDOW`].
    pub duplicate_window: HumanDuration,
    /// How long the stream keeps a message, used when the stream is created; 0 keeps it for ever.
    /// Default `7d`. See [`bounds::MAX_AGE`].
    pub max_age: HumanDuration,
    /// Maximum size of the stream, used when the stream is created; 0 sets no limit. A full stream
    /// refuses new messages, and the events wait in the outbox. Default `4GiB`. See
    /// [`bounds::MAX_BYTES`].
    pub max_bytes: ByteSize,
    /// Reaction when the stream has lost events that it had acknowledged. Default `auto`.
    pub heal: Heal,
    /// Whether events go in batches: atomic ones (NATS 2.12, a stream with `allow_atomic`) or fast
    /// ones (NATS 2.14, a stream with `allow_batched`). Default `auto`.
    pub batches: Batches,
}

/// Whether events go in batches.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Batches {
    /// Batches of a kind that the stream accepts: fast ones under backlog, atomic ones where they
    /// are measured to be clearly faster. A stream that Postrider creates accepts both.
    Auto,
    /// Atomic batches wherever the stream accepts them, without measuring.
    Always,
    /// Fast batches wherever the stream accepts them, also without a backlog.
    Fast,
    /// No batches.
    Off,
}

impl<'de> Deserialize<'de> for Batches {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        parse_text(deserializer, "\"auto\", \"always\", \"fast\" or \"off\"", |text| match text {
            "auto" => Some(Self::Auto),
            "always" => Some(Self::Always),
            "fast" => Some(Self::Fast),
            "off" => Some(Self::Off),
            _ => None,
        })
    }
}

/// Reaction when the stream has lost events that it had acknowledged.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Heal {
    /// Publish again what the outbox still has of them, in order and under the same ids.
    Auto,
    /// Publish nothing until an operator runs `postrider reconcile`.
    Manual,
}

impl<'de> Deserialize<'de> for Heal {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        parse_text(deserializer, "\"auto\" or \"manual\"", |text| match text {
            "auto" => Some(Self::Auto),
            "manual" => Some(Self::Manual),
            _ => None,
        })
    }
}

impl Default for StreamConfig {
    fn default() -> Self {
        Self {
            name: String::new(),
            subjects: Vec::new(),
            create: false,
            replicas: 1,
            duplicate_window: HumanDuration(Duration::from_mins(10)),
            max_age: HumanDuration(Duration::from_hours(7 * 24)),
            max_bytes: ByteSize(4 << 30),
            heal: Heal::Auto,
            batches: Batches::Auto,
        }
    }
}

/// `[relay]`: how the relay reads and publishes.
#[derive(Debug, Clone, Deserialize, Serialize)]
#[serde(default, deny_unknown_fields)]
pub struct RelayConfig {
    /// The relay's name, which identifies its row in the position table: up to 40 letters, digits,
    /// `-`, `_` and `.`. Default `default`. A new name starts over at the oldest row that is kept.
    pub name: RelayName,
    /// `ce-source` of events that name none; a URI reference such as `/orders`. Default
    /// `postrider`.
    pub source: String,
    /// Most rows that one fetch reads from the outbox. Default 1000; lower it when memory is short.
    /// See [`bounds::BATCH_EVENTS`].
    pub batch_events: u32,
    /// Most payload bytes that one fetch reads from the outbox; a single larger row is fetched
    /// alone. Default `8MiB`. See [`bounds::BUFFER_BYTES`].
    pub batch_bytes: ByteSize,
    /// Most events in flight: sent to the broker and not answered. Default 1024; raise it when the
    /// broker is far away. See [`bounds::IN_FLIGHT_EVENTS`].
    pub in_flight_events: u32,
    /// Most payload bytes in flight, sent to the broker and not answered; a larger event is sent
    /// alone. Default `8MiB`. See [`bounds::BUFFER_BYTES`].
    pub in_flight_bytes: ByteSize,
    /// How often the outbox is polled while there is work. Default `2ms`; a longer interval trades
    /// latency for fewer queries. The interval grows to up to 5 ms by itself while each poll brings
    /// more than 16 events. See [`bounds::POLL_INTERVAL`].
    pub poll_interval: HumanDuration,
    /// How often the outbox is polled while nothing wakes the relay, so that a lost wake-up delays
    /// events by no more than this; not below `poll_interval`. Default `5s`. See
    /// [`bounds::IDLE_INTERVAL`].
    pub idle_interval: HumanDuration,
    /// For how long an instance leads without hearing from the database. Another takes over that
    /// long after the leader froze or lost the network; a crash is noticed within two seconds.
    /// Default `10s`; raise it when the database stalls for longer. See [`bounds::LEASE`].
    pub lease: HumanDuration,
    /// How an idle relay is woken. Default `gated`; `poll` never sleeps. Behind a connection pooler
    /// the relay polls by itself.
    pub wake: Wake,
    /// How long published rows stay in the outbox. Default `24h`; what is not published stays,
    /// whatever its age. See [`bounds::RETENTION`].
    pub retention: HumanDuration,
    /// How long resolved letters stay. Default `30d`; longer while the outbox still has their rows.
    /// See [`bounds::RETENTION`].
    pub letter_retention: HumanDuration,
    /// How long the record of what operators did stays. Default `365d`. See [`bounds::RETENTION`].
    pub audit_retention: HumanDuration,
    /// Treatment of events that no route takes. Default `warn`.
    pub unrouted: Unrouted,
    /// The names of all relays of this configuration, this one included.
    #[serde(skip)]
    pub siblings: Vec<String>,
}

impl Default for RelayConfig {
    fn default() -> Self {
        Self {
            name: RelayName::default(),
            source: "postrider".to_owned(),
            batch_events: 1000,
            batch_bytes: ByteSize(8 << 20),
            in_flight_events: 1024,
            in_flight_bytes: ByteSize(8 << 20),
            poll_interval: HumanDuration(Duration::from_millis(2)),
            idle_interval: HumanDuration(Duration::from_secs(5)),
            lease: HumanDuration(Duration::from_secs(10)),
            wake: Wake::Gated,
            retention: HumanDuration(Duration::from_hours(24)),
            letter_retention: HumanDuration(Duration::from_hours(30 * 24)),
            audit_retention: HumanDuration(Duration::from_hours(365 * 24)),
            unrouted: Unrouted::Warn,
            siblings: Vec::new(),
        }
    }
}

/// Way in which an idle relay learns of a new event.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Wake {
    /// The inserting transaction notifies, but only while the wake-up gate is open.
    Gated,
    /// The relay polls every `poll_interval` × 25 while idle. No transaction notifies.
    Poll,
}

impl<'de> Deserialize<'de> for Wake {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        parse_text(deserializer, "\"gated\" or \"poll\"", |text| match text {
            "gated" => Some(Self::Gated),
            "poll" => Some(Self::Poll),
            _ => None,
        })
    }
}

/// Treatment of events that no route takes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Unrouted {
    /// The events are counted, and the relay warns.
    Warn,
    /// The events become dead letters.
    Dead,
    /// The events are ignored: other programs take them, or no program wants them.
    Off,
}

impl<'de> Deserialize<'de> for Unrouted {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        parse_text(deserializer, "\"warn\", \"dead\" or \"off\"", |text| match text {
            "warn" => Some(Self::Warn),
            "dead" => Some(Self::Dead),
            "off" => Some(Self::Off),
            _ => None,
        })
    }
}

/// `[route]`: filter, destination and retry policy of events, and the effect of a dead event on its
/// key. `[[route]]` is a list of such tables, each with a `name`: see [`routes`].
#[derive(Debug, Clone, Deserialize, Serialize)]
#[serde(default, deny_unknown_fields)]
pub struct RouteConfig {
    /// The types of the events that the route takes, such as `order.placed` or, with a `*` at the
    /// end, `order.*`; empty for all. Default empty.
    pub types: Vec<String>,
    /// Types that the route does not take, written as in `types`. Default empty.
    pub except_types: Vec<String>,
    /// The kinds that the route takes, such as `integration`; empty for all. Default empty.
    pub kinds: Vec<String>,
    /// The aggregate types that the route takes; empty for all, and for events without a key.
    /// Default empty.
    pub aggregates: Vec<String>,
    /// The number of flows among which the route's keys are divided, each with a lease of its own.
    /// Default 1. See [`bounds::SHARDS`].
    pub shards: u32,
    /// The kind of log that takes the events. Default `nats`.
    pub sink: SinkKind,
    /// The subject template. Its first token is literal. Default `events.{event_type}`.
    pub subject: String,
    /// The effect of a dead event on the later events of its key. Default `hold`.
    pub on_dead: OnDead,
    /// The reaction when the server forbids us a subject. Default `pause`.
    pub on_denied: OnDenied,
    /// The number of attempts for a message that the broker refuses, before it becomes a dead
    /// letter. An outage uses up no attempt. Default 20. See [`bounds::ATTEMPTS`].
    pub attempts: u32,
    /// The wait after the first attempt at a message that the broker refuses. Default `100ms`. See
    /// [`bounds::RETRY_DELAY`].
    pub delay: HumanDuration,
    /// The growth of the wait from attempt to attempt. Default `exponential`.
    pub backoff: BackoffShape,
    /// The part of each wait that is drawn at random, from 0 (exactly that wait) to 1 (anything up
    /// to it). Default 0.2.
    pub jitter: f64,
    /// The longest wait between two attempts at a message, not below `delay`. Default `5m`. See
    /// [`bounds::RETRY_DELAY`].
    pub max_delay: HumanDuration,
    /// The filter that `types`, `except_types`, `kinds`, `aggregates` and `shards` make, or the
    /// filter of unrouted events.
    #[serde(skip)]
    pub filter: Filter,
    /// The name of the route. With several shards the name of each relay adds its shard, such as
    /// `orders.0-of-4`.
    #[serde(skip)]
    pub name: String,
}

impl RouteConfig {
    /// The rules of the route's filter, without its shard. Invalid patterns are left out, because
    /// loading refuses them.
    pub fn rules(&self) -> Rules {
        let patterns = |texts: &[String]| {
            texts.iter().filter_map(|text| Pattern::parse(text)).collect::<Vec<_>>()
        };
        Rules {
            types: patterns(&self.types),
            except_types: patterns(&self.except_types),
            kinds: self.kinds.clone(),
            aggregates: self.aggregates.clone(),
            shard: None,
        }
    }
}

impl Default for RouteConfig {
    fn default() -> Self {
        Self {
            types: Vec::new(),
            except_types: Vec::new(),
            kinds: Vec::new(),
            aggregates: Vec::new(),
            shards: 1,
            sink: SinkKind::Nats,
            subject: "events.{event_type}".to_owned(),
            on_dead: OnDead::Hold,
            on_denied: OnDenied::Pause,
            attempts: 20,
            delay: HumanDuration(Duration::from_millis(100)),
            backoff: BackoffShape::Exponential,
            jitter: 0.2,
            max_delay: HumanDuration(Duration::from_mins(5)),
            filter: Filter::default(),
            name: String::new(),
        }
    }
}

/// The kind of log that takes the events of a route.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum SinkKind {
    /// The JetStream stream of `[stream]`.
    Nats,
    /// Standard output: one CloudEvents JSON line an event, for inspection and for development.
    Stdout,
    /// No log: the sink of the route of unrouted events. A file cannot set it.
    Unrouted,
}

impl<'de> Deserialize<'de> for SinkKind {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        parse_text(deserializer, "\"nats\" or \"stdout\"", |text| match text {
            "nats" => Some(Self::Nats),
            "stdout" => Some(Self::Stdout),
            _ => None,
        })
    }
}

/// The reaction when the server forbids us a subject.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum OnDenied {
    /// The route publishes nothing until the subject is allowed.
    Pause,
    /// The route retries the events of that subject as `attempts` says, and goes on with the
    /// others.
    Retry,
}

impl<'de> Deserialize<'de> for OnDenied {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        parse_text(deserializer, "\"pause\" or \"retry\"", |text| match text {
            "pause" => Some(Self::Pause),
            "retry" => Some(Self::Retry),
            _ => None,
        })
    }
}

/// The growth of the wait from attempt to attempt.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum BackoffShape {
    /// Each wait is longer than the one before by `delay`.
    Linear,
    /// Each wait is twice the one before.
    Exponential,
}

impl<'de> Deserialize<'de> for BackoffShape {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        parse_text(deserializer, "\"linear\" or \"exponential\"", |text| match text {
            "linear" => Some(Self::Linear),
            "exponential" => Some(Self::Exponential),
            _ => None,
        })
    }
}

impl Serialize for OnDead {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(match self {
            Self::Hold => "hold",
            Self::Skip => "skip",
        })
    }
}

impl<'de> Deserialize<'de> for OnDead {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        parse_text(deserializer, "\"hold\" or \"skip\"", |text| match text {
            "hold" => Some(Self::Hold),
            "skip" => Some(Self::Skip),
            _ => None,
        })
    }
}
