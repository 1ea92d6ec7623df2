//! Creates the stream when that is allowed, and verifies it. A stream that would lose events is
//! refused.

use std::time::Duration;

use async_nats::jetstream::{
    Context, ErrorCode,
    context::CreateStreamErrorKind,
    stream::{Config, DiscardPolicy, RetentionPolicy, StorageType},
};
use tokio::time::timeout;

use super::{
    fault::{Fault, refused, unavailable},
    headers::FRAMING_BYTES,
    stream_info::{API_TIMEOUT, StreamInfo, find},
    version::Version,
};
use crate::{
    broker::{BrokerError, Copies, Keeps, LogFacts, Warning},
    config,
    delivery::{BatchSupport, Batching},
    wire::{Limits, SubjectTemplate, captures},
};

/// Rule by which a stream with this configuration keeps its messages.
pub(super) fn keeps(config: &Config) -> Keeps {
    match config.retention {
        RetentionPolicy::Limits if config.max_messages_per_subject <= 0 => Keeps::UntilItsLimits,
        RetentionPolicy::Limits => Keeps::UntilReplaced,
        RetentionPolicy::Interest | RetentionPolicy::WorkQueue => Keeps::UntilConsumed,
    }
}

/// Kinds of batches that the stream supports.
fn batching_of(version: Version, config: &Config) -> Batching {
    let atomic = config.allow_atomic_publish && version.has_atomic();
    let fast = config.allow_batch_publish && version.has_fast();
    match (atomic, fast) {
        (true, true) => Batching::IfFaster(BatchSupport::Both),
        (true, false) => Batching::IfFaster(BatchSupport::Atomic),
        (false, true) => Batching::IfFaster(BatchSupport::Fast),
        (false, false) if version.has_atomic() => Batching::Off,
        (false, false) => Batching::Unknown,
    }
}

/// Error codes of a server that cannot reserve the storage for a stream.
const NO_STORAGE: [ErrorCode; 2] =
    [ErrorCode::STORAGE_RESOURCES_EXCEEDED, ErrorCode::MEMORY_RESOURCES_EXCEEDED];

/// Reads the description of the stream, creates the stream when that is allowed, and verifies it.
///
/// # Errors
/// [`BrokerError::Unavailable`] and [`BrokerError::Missing`] may pass by themselves;
/// [`BrokerError::Refused`] needs a person.
pub async fn verify(
    jetstream: &Context,
    config: &config::StreamConfig,
    template: &SubjectTemplate,
    ack_timeout: Duration,
) -> Result<LogFacts, BrokerError> {
    let client = &jetstream.client();
    let version = Version::of(client);
    if version.is_too_old() {
        let fault = format!(
            "is on nats-server {}; postrider needs 2.12 or newer",
            client.server_info().version
        );
        return Err(refused(&config.name, fault, "upgrade nats-server".to_owned()));
    }
    let info = match find(jetstream, &config.name).await {
        Err(BrokerError::Missing { .. }) if config.create => {
            create(version, jetstream, config).await?;
            find(jetstream, &config.name).await?
        }
        other => other?,
    };
    if let Some((fault, hint)) =
        fault(&info.config, template, config::duplicate_window_needed(ack_timeout))
    {
        return Err(refused(&config.name, fault, hint));
    }
    let server_max = client.max_payload() as u64;
    let stream_max = u64::try_from(info.config.max_message_size).ok().filter(|max| *max > 0);
    Ok(LogFacts {
        limits: Limits {
            stream: config.name.clone(),
            subjects: info.config.subjects.clone(),
            message_bytes_max: stream_max.unwrap_or(server_max).min(server_max),
            framing_bytes: FRAMING_BYTES as u64,
        },
        identity: info.created_ns(),
        domain: info.domain.clone(),
        first_seq: info.state.first_sequence,
        last_seq: info.state.last_sequence,
        recognises: info.config.duplicate_window,
        keeps: keeps(&info.config),
        copies: if info.config.num_replicas > 1 { Copies::Several } else { Copies::One },
        batches: batching_of(version, &info.config),
        warnings: warnings(&info),
    })
}

/// Size limit in bytes for the server's configuration. Our 0 means no limit, which the server
/// writes as -1.
fn limit(bytes: u64) -> i64 {
    if bytes == 0 { -1 } else { i64::try_from(bytes).unwrap_or(i64::MAX) }
}

async fn create(
    version: Version,
    jetstream: &Context,
    config: &config::StreamConfig,
) -> Result<(), BrokerError> {
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
        allow_atomic_publish: are_wanted && version.has_atomic(),
        allow_batch_publish: are_wanted && version.has_fast(),
        ..Config::default()
    };
    let stream = config.name.clone();
    match timeout(API_TIMEOUT, jetstream.create_stream(wanted)).await {
        Err(_) => {
            let reason = format!("creating it took longer than {API_TIMEOUT:?}");
            Err(unavailable(&stream, Fault::Silent, reason))
        }
        Ok(Ok(_)) => {
            tracing::info!(
                stream = %config.name, subjects = ?config.subjects, max_age = %config.max_age,
                max_bytes = %config.max_bytes, "stream created"
            );
            Ok(())
        }
        Ok(Err(error)) => match error.kind() {
            CreateStreamErrorKind::JetStream(api) if api.code() / 100 == 4 => {
                let hint = "change [stream] subjects, replicas, max_age or max_bytes, or the stream \
                            they clash with";
                Err(refused(&stream, format!("cannot be created: {api}"), hint.to_owned()))
            }
            CreateStreamErrorKind::JetStream(api) if NO_STORAGE.contains(&api.error_code()) => {
                Err(unavailable(&stream, Fault::NoStorage, error.to_string()))
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
                Err(unavailable(&stream, Fault::Answered, error.to_string()))
            }
        },
    }
}

/// Fault that makes a stream unusable, with advice.
fn fault(
    config: &Config,
    template: &SubjectTemplate,
    window_needed: Duration,
) -> Option<(String, String)> {
    let found = |fault: &str, hint: &str| Some((fault.to_owned(), hint.to_owned()));
    if config.no_ack {
        return found("does not acknowledge (no_ack)", "set no_ack to false");
    }
    if config.sealed {
        return found(
            "is sealed and takes no messages",
            "it stays sealed: name another stream in [stream] name and start the relay again, which \
             goes on there",
        );
    }
    if config.mirror.is_some() {
        return found("is a mirror and takes no messages", "name its origin in [stream] name");
    }
    let sample = template.sample();
    if !config.subjects.iter().any(|filter| captures(filter, &sample)) {
        return Some((
            format!(
                "captures {:?}, which \"{sample}\" of [route] subject is not among",
                config.subjects
            ),
            format!(
                "add the route's prefix to the stream's subjects (nats stream edit {} --subjects …), or \
                 change [route] subject",
                config.name
            ),
        ));
    }
    if config.duplicate_window < window_needed {
        return Some((
            format!(
                "forgets message ids after {:?}, retries span {window_needed:?}",
                config.duplicate_window
            ),
            format!(
                "raise its duplicate window to {window_needed:?} or more; 10 minutes is good: nats \
                 stream edit {} --dupe-window 10m",
                config.name
            ),
        ));
    }
    None
}

/// Warnings about settings of a stream that might lose events.
fn warnings(info: &StreamInfo) -> Vec<Warning> {
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
