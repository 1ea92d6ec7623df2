//! The stream: created when allowed, otherwise verified. What would lose events is refused.

use std::time::Duration;

use async_nats::{
    Client,
    jetstream::{
        self, ErrorCode,
        context::{CreateStreamErrorKind, GetStreamErrorKind},
        stream::{Config, DiscardPolicy, Info, RetentionPolicy, StorageType, Stream},
    },
};
use thiserror::Error;
use tokio::time::timeout;

use crate::{
    config,
    delivery::{Batching, Taken},
    wire::{Limits, SubjectTemplate, captures},
};

/// How long the API may take to answer.
pub(super) const API_TIMEOUT: Duration = Duration::from_secs(5);

/// What was learned from the stream.
#[derive(Debug, Clone)]
pub struct Facts {
    /// What it takes.
    pub limits: Limits,
    /// When it was created, as the server writes it.
    pub created: String,
    /// Its first sequence; what was below is gone by its own limits, or purged.
    pub first_seq: u64,
    /// Its last sequence.
    pub last_seq: u64,
    /// For how long it recognises an id.
    pub duplicate_window: Duration,
    /// For how long it keeps a message.
    pub keeps: Keeps,
    /// How many servers have it.
    pub copies: Copies,
    /// Which batches it takes.
    pub batches: Batching,
    /// What might lose events, for the log and `check`.
    pub warnings: Vec<Warning>,
}

/// For how long a stream keeps a message.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Keeps {
    /// Until its limits are reached: what it does not hold, it has lost or dropped.
    UntilItsLimits,
    /// Until its consumers have acknowledged it, or a later one of its subject has taken its place: what
    /// it does not hold may have served its time.
    UntilOthersAct,
}

impl Keeps {
    pub(super) fn of(config: &Config) -> Self {
        match config.retention {
            RetentionPolicy::Limits if config.max_messages_per_subject <= 0 => Self::UntilItsLimits,
            RetentionPolicy::Limits | RetentionPolicy::Interest | RetentionPolicy::WorkQueue => {
                Self::UntilOthersAct
            }
        }
    }
}

/// How many servers have a stream.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Copies {
    /// One.
    One,
    /// Several, of which one leads.
    Several,
}

/// Which batches the stream takes.
fn batching_of(client: &Client, config: &Config) -> Batching {
    let atomic = config.allow_atomic_publish && knows_atomic(client);
    let fast = config.allow_batch_publish && knows_fast(client);
    match (atomic, fast) {
        (true, true) => Batching::Taken(Taken::Both),
        (true, false) => Batching::Taken(Taken::Atomic),
        (false, true) => Batching::Taken(Taken::Fast),
        (false, false) if knows_atomic(client) => Batching::Off,
        (false, false) => Batching::Unknown,
    }
}

/// Whether the server that we are connected to knows of atomic batches.
fn knows_atomic(client: &Client) -> bool {
    client.is_server_compatible(2, 12, 0)
}

/// Whether it knows of fast batches.
fn knows_fast(client: &Client) -> bool {
    client.is_server_compatible(2, 14, 0)
}

/// Something that might lose events, with what to do about it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Warning {
    /// What is so.
    pub text: String,
    /// What to do.
    pub hint: &'static str,
}

/// Why the stream cannot be used.
#[derive(Debug, Error)]
pub enum StreamError {
    /// It does not answer; it may later.
    #[error("stream \"{stream}\" cannot be asked for: {reason}")]
    Unavailable {
        /// The stream's name.
        stream: String,
        /// What happened.
        reason: String,
        /// Nothing was answered at all, over a connection that stands.
        silent: bool,
    },
    /// There is none, and we may not create it.
    #[error("stream \"{stream}\" does not exist")]
    Missing {
        /// The stream's name.
        stream: String,
    },
    /// It would lose events, or cannot take them.
    #[error("stream \"{stream}\" {fault}")]
    Refused {
        /// The stream's name.
        stream: String,
        /// What is wrong with it.
        fault: String,
        /// What to do about it.
        hint: String,
    },
}

impl StreamError {
    /// What to do about it.
    pub fn hint(&self) -> &str {
        match self {
            Self::Unavailable { .. } => "is JetStream enabled and does the cluster have a leader?",
            Self::Missing { .. } => {
                "create it, or let postrider do so with [stream] create = true; one that held events \
                 and is gone is for a person to restore or to create anew"
            }
            Self::Refused { hint, .. } => hint,
        }
    }
}

/// Asks for the stream, creates it when allowed, and verifies it.
///
/// # Errors
/// [`StreamError::Unavailable`] and [`StreamError::Missing`] may pass; [`StreamError::Refused`]
/// needs a person.
pub async fn verify(
    client: &Client,
    config: &config::Stream,
    template: &SubjectTemplate,
    ack_timeout: Duration,
) -> Result<Facts, StreamError> {
    let mut context = jetstream::new(client.clone());
    context.set_timeout(API_TIMEOUT);
    let info = match ask(&context, config).await {
        Err(StreamError::Missing { .. }) if config.create => {
            create(client, &context, config).await?
        }
        other => other?,
    };
    if let Some((fault, hint)) =
        fault(&info.config, template, config::duplicate_window_needed(ack_timeout))
    {
        return Err(StreamError::Refused { stream: config.name.clone(), fault, hint });
    }
    let server_max = client.max_payload() as u64;
    let stream_max = u64::try_from(info.config.max_message_size).ok().filter(|max| *max > 0);
    Ok(Facts {
        limits: Limits {
            stream: config.name.clone(),
            subjects: info.config.subjects.clone(),
            message_bytes_max: stream_max.unwrap_or(server_max).min(server_max),
        },
        created: info.created.to_string(),
        first_seq: info.state.first_sequence,
        last_seq: info.state.last_sequence,
        duplicate_window: info.config.duplicate_window,
        keeps: Keeps::of(&info.config),
        copies: if info.config.num_replicas > 1 { Copies::Several } else { Copies::One },
        batches: batching_of(client, &info.config),
        warnings: warnings(&info),
    })
}

async fn ask(context: &jetstream::Context, config: &config::Stream) -> Result<Info, StreamError> {
    find(context, &config.name).await.map(|stream| stream.cached_info().clone())
}

/// Asks for a stream.
pub(super) async fn find(context: &jetstream::Context, name: &str) -> Result<Stream, StreamError> {
    let stream = name.to_owned();
    let unavailable =
        |silent, reason| StreamError::Unavailable { stream: name.to_owned(), reason, silent };
    match timeout(API_TIMEOUT, context.get_stream(name)).await {
        Err(_) => Err(unavailable(true, format!("no answer within {API_TIMEOUT:?}"))),
        Ok(Ok(found)) => Ok(found),
        Ok(Err(error)) => match error.kind() {
            GetStreamErrorKind::JetStream(api)
                if api.error_code() == ErrorCode::STREAM_NOT_FOUND =>
            {
                Err(StreamError::Missing { stream })
            }
            GetStreamErrorKind::JetStream(api) => Err(unavailable(false, api.to_string())),
            GetStreamErrorKind::Request
            | GetStreamErrorKind::EmptyName
            | GetStreamErrorKind::InvalidStreamName => Err(unavailable(true, error.to_string())),
        },
    }
}

/// The server's spelling of a limit: none is -1.
fn limit(bytes: u64) -> i64 {
    if bytes == 0 { -1 } else { i64::try_from(bytes).unwrap_or(i64::MAX) }
}

async fn create(
    client: &Client,
    context: &jetstream::Context,
    config: &config::Stream,
) -> Result<Info, StreamError> {
    let are_wanted = config.batches != config::Batches::Off;
    let wanted = Config {
        name: config.name.clone(),
        subjects: config.subjects.clone(),
        storage: StorageType::File,
        num_replicas: usize::from(config.replicas),
        discard: DiscardPolicy::New,
        duplicate_window: config.duplicate_window.0,
        max_age: config.max_age.0,
        max_bytes: limit(config.max_bytes.0),
        allow_direct: true,
        allow_atomic_publish: are_wanted && knows_atomic(client),
        allow_batch_publish: are_wanted && knows_fast(client),
        ..Config::default()
    };
    let stream = config.name.clone();
    match timeout(API_TIMEOUT, context.create_stream(wanted)).await {
        Err(_) => Err(StreamError::Unavailable {
            stream,
            reason: format!("creating it took longer than {API_TIMEOUT:?}"),
            silent: true,
        }),
        Ok(Ok(created)) => {
            tracing::info!(
                stream = %config.name, subjects = ?config.subjects, max_age = %config.max_age,
                max_bytes = %config.max_bytes, "stream created"
            );
            Ok(created.cached_info().clone())
        }
        Ok(Err(error)) => match error.kind() {
            CreateStreamErrorKind::JetStream(api) if api.code() / 100 == 4 => {
                Err(StreamError::Refused {
                    stream,
                    fault: format!("cannot be created: {api}"),
                    hint: "change [stream] subjects, replicas, max_age or max_bytes, or the \
                           stream they clash with"
                        .to_owned(),
                })
            }
            CreateStreamErrorKind::EmptyStreamName
            | CreateStreamErrorKind::InvalidStreamName
            | CreateStreamErrorKind::DomainAndExternalSet
            | CreateStreamErrorKind::JetStreamUnavailable
            | CreateStreamErrorKind::JetStream(_)
            | CreateStreamErrorKind::TimedOut
            | CreateStreamErrorKind::Response
            | CreateStreamErrorKind::NotFound
            | CreateStreamErrorKind::ResponseParse => {
                let reason = error.to_string();
                Err(StreamError::Unavailable { stream, reason, silent: false })
            }
        },
    }
}

/// What makes a stream unusable, and what to do about it.
fn fault(
    config: &Config,
    template: &SubjectTemplate,
    window_needed: Duration,
) -> Option<(String, String)> {
    let says = |fault: &str, hint: &str| Some((fault.to_owned(), hint.to_owned()));
    if config.no_ack {
        return says("does not acknowledge (no_ack)", "set no_ack to false");
    }
    if config.sealed {
        return says("is sealed and takes no messages", "name another stream in [stream] name");
    }
    if config.mirror.is_some() {
        return says("is a mirror and takes no messages", "name its origin in [stream] name");
    }
    let sample = template.sample();
    if !config.subjects.iter().any(|filter| captures(filter, &sample)) {
        return Some((
            format!(
                "captures {:?}, which \"{sample}\" of [route] subject is not among",
                config.subjects
            ),
            "add the route's prefix to the stream's subjects, or change [route] subject".to_owned(),
        ));
    }
    if config.duplicate_window < window_needed {
        return Some((
            format!(
                "forgets message ids after {:?}, retries span {window_needed:?}",
                config.duplicate_window
            ),
            format!("raise its duplicate window to {window_needed:?} or more; 10 minutes is good"),
        ));
    }
    None
}

/// What might lose events.
fn warnings(info: &Info) -> Vec<Warning> {
    let config = &info.config;
    let mut warnings = Vec::new();
    let mut warn = |text: &str, hint| warnings.push(Warning { text: text.to_owned(), hint });
    if config.storage == StorageType::Memory {
        warn("keeps messages in memory only", "use file storage");
    }
    if config.num_replicas < 2 {
        warn(
            "has one replica: a crash of the broker's machine can lose up to two minutes of \
             acknowledged events",
            "use 3 replicas, or sync_interval: always",
        );
    }
    let limited =
        config.max_messages > 0 || config.max_bytes > 0 || config.max_messages_per_subject > 0;
    if config.discard == DiscardPolicy::Old && limited {
        warn("drops its oldest messages when it is full", "set discard to new");
    }
    if config.retention == RetentionPolicy::Interest && info.state.consumer_count == 0 {
        warn(
            "keeps only what a consumer waits for, and there is no consumer",
            "create the consumers first, or set retention to limits",
        );
    }
    if config.allow_rollup {
        warn("lets a message purge others (allow_rollup)", "set allow_rollup to false");
    }
    warnings
}
