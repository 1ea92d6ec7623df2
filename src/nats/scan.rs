//! Scans a stream: reads the headers of its messages from a sequence on, page by page.
//!
//! A message of an outbox carries `Nats-Msg-Id` and `ce-sequence`. Several outboxes may share the
//! stream, so the relay asks its outbox which messages are its own.

use async_nats::{
    HeaderMap, Message,
    jetstream::{
        Context, ErrorCode,
        consumer::{
            DeliverPolicy,
            pull::{Ordered, OrderedConfig},
        },
        stream::{ConsumerError, ConsumerErrorKind, Stream},
    },
};
use futures_util::StreamExt;
use tokio::time::timeout;
use uuid::Uuid;

use super::{
    fault::{Fault, unavailable},
    stream::keeps,
    stream_info::{API_TIMEOUT, find},
};
use crate::{
    broker::{BrokerError, Keeps, SIGHTINGS_MAX, Sighting},
    event::Seq,
};

/// Maximum number of messages that are read for one page. The bound lets a scan report progress
/// also where most messages are not of an outbox.
const MESSAGES_MAX: usize = 65_536;

/// Error codes of a server that refuses another consumer because of a limit of the stream or the
/// account.
const NO_ROOM: [ErrorCode; 2] =
    [ErrorCode::MAXIMUM_CONSUMERS_LIMIT, ErrorCode::ACCOUNT_RESOURCES_EXCEEDED];

/// Error codes of a work queue that refuses the scan's consumer.
const WORK_QUEUE: [ErrorCode; 3] = [
    ErrorCode::CONSUMER_PULL_REQUIRES_ACK,
    ErrorCode::CONSUMER_WQ_MULTIPLE_UNFILTERED,
    ErrorCode::CONSUMER_WQ_CONSUMER_NOT_UNIQUE,
];

/// Scan in progress.
pub struct StreamScan {
    jetstream: Context,
    stream: String,
    keeps: Keeps,
    last_seq: u64,
    messages: u64,
    expected: u64,
    reader: Option<ScanConsumer>,
}

struct ScanConsumer {
    source: Stream<()>,
    consumer: String,
    messages: Ordered,
}

impl StreamScan {
    /// A scan of the messages above a sequence. [`StreamScan::advance`] starts it.
    pub fn new(jetstream: Context, stream: String, above: u64) -> Self {
        let keeps = Keeps::UntilItsLimits;
        Self { jetstream, stream, keeps, last_seq: above, messages: 0, expected: 0, reader: None }
    }

    /// Starts the scan, or resumes it with the messages that were stored since. The scan ends at
    /// the last sequence that the stream has now. A stream that keeps a message until it is
    /// consumed is not scanned: the scan then has no messages.
    ///
    /// # Errors
    /// [`BrokerError::Unavailable`] when the stream does not answer, or has no room for a consumer.
    pub async fn advance(&mut self) -> Result<(), BrokerError> {
        let above = self.last_seq;
        let info = find(&self.jetstream, &self.stream).await?;
        let state = &info.state;
        self.keeps = keeps(&info.config);
        self.last_seq = state.last_sequence;
        let is_empty =
            self.last_seq <= above || state.messages == 0 || self.last_seq < state.first_sequence;
        if is_empty || self.keeps == Keeps::UntilConsumed {
            return Ok(());
        }
        self.open(above).await
    }

    async fn open(&mut self, above: u64) -> Result<(), BrokerError> {
        let source = self.jetstream.get_stream_no_info(&self.stream).await;
        let source: Stream<()> =
            source.map_err(|error| self.unreadable(Fault::Answered, &error.to_string()))?;
        let consumer = source.create_consumer(OrderedConfig {
            deliver_policy: DeliverPolicy::ByStartSequence { start_sequence: above + 1 },
            headers_only: true,
            ..OrderedConfig::default()
        });
        let consumer = match timeout(API_TIMEOUT, consumer).await {
            Err(_) => {
                let reason = format!("creating a consumer took longer than {API_TIMEOUT:?}");
                return Err(self.unreadable(Fault::Silent, &reason));
            }
            Ok(Ok(consumer)) => consumer,
            // The stream became a work queue after its description was read.
            Ok(Err(error)) if is_one_of(&error, &WORK_QUEUE) => {
                self.keeps = Keeps::UntilConsumed;
                return Ok(());
            }
            Ok(Err(error)) => {
                let fault = match error.kind() {
                    ConsumerErrorKind::TimedOut | ConsumerErrorKind::Request => Fault::Silent,
                    ConsumerErrorKind::JetStream(_) if is_one_of(&error, &NO_ROOM) => {
                        Fault::NoConsumer
                    }
                    ConsumerErrorKind::JetStream(_)
                    | ConsumerErrorKind::InvalidConsumerType
                    | ConsumerErrorKind::InvalidName
                    | ConsumerErrorKind::Other => Fault::Answered,
                };
                return Err(self.unreadable(fault, &format!("creating a consumer: {error}")));
            }
        };
        let pending = consumer.cached_info().num_pending;
        self.expected = self.messages + pending;
        if pending == 0 {
            return Ok(());
        }
        let name = consumer.cached_info().name.clone();
        let messages = consumer.messages().await;
        let messages =
            messages.map_err(|error| self.unreadable(Fault::Answered, &error.to_string()))?;
        self.reader = Some(ScanConsumer { source, consumer: name, messages });
        Ok(())
    }

    /// The last sequence of the stream when the scan last advanced.
    pub fn last_seq(&self) -> u64 {
        self.last_seq
    }

    /// Number of messages read.
    pub fn messages(&self) -> u64 {
        self.messages
    }

    /// Number of messages that the scan has to read, as counted when it last advanced.
    pub fn expected(&self) -> u64 {
        self.expected
    }

    /// Rule by which the stream keeps its messages, as it was when the scan last advanced.
    pub fn keeps(&self) -> Keeps {
        self.keeps
    }

    /// Reads the next page of messages. Returns whether more messages follow.
    ///
    /// # Errors
    /// [`BrokerError::Unavailable`] when the stream delivers fewer messages than it reported.
    pub async fn page(&mut self, sightings: &mut Vec<Sighting>) -> Result<bool, BrokerError> {
        sightings.clear();
        for _ in 0..MESSAGES_MAX {
            if sightings.len() >= SIGHTINGS_MAX {
                return Ok(true);
            }
            let Some(message) = self.next().await? else { return Ok(false) };
            let identity = message.headers.as_ref().and_then(identity);
            let Some((id, seq)) = identity else { continue };
            sightings.push(Sighting { id, seq, subject: message.subject.as_str().into() });
        }
        Ok(true)
    }

    /// The next message of the scan, with headers only; `None` at the end of the scan.
    ///
    /// # Errors
    /// The errors of [`StreamScan::page`].
    pub async fn next(&mut self) -> Result<Option<Message>, BrokerError> {
        let Some(reader) = &mut self.reader else { return Ok(None) };
        let next = timeout(API_TIMEOUT, reader.messages.next()).await;
        let message = match next {
            Err(_) => {
                return Err(
                    self.unreadable(Fault::Silent, &format!("no message came for {API_TIMEOUT:?}"))
                );
            }
            Ok(None) => {
                return Err(self.unreadable(Fault::Answered, "the messages ended early"));
            }
            Ok(Some(Err(error))) => {
                return Err(self.unreadable(Fault::Answered, &error.to_string()));
            }
            Ok(Some(Ok(message))) => message,
        };
        let (seq, pending) = match message.info() {
            Ok(info) => (info.stream_sequence, info.pending),
            Err(error) => return Err(self.unreadable(Fault::Answered, &error.to_string())),
        };
        if seq >= self.last_seq || pending == 0 {
            self.close().await;
        }
        if seq > self.last_seq {
            return Ok(None);
        }
        self.messages += 1;
        Ok(Some(message.message))
    }

    /// Deletes the consumer. It would expire by itself, but a stream has room for a limited number.
    async fn close(&mut self) {
        let Some(ScanConsumer { source, consumer, messages }) = self.reader.take() else { return };
        drop(messages);
        if let Ok(Err(error)) = timeout(API_TIMEOUT, source.delete_consumer(&consumer)).await {
            tracing::debug!(%error, "the consumer of a scan was not deleted; it expires by itself");
        }
    }

    fn unreadable(&self, fault: Fault, reason: &str) -> BrokerError {
        let reason = format!("scanning its headers: {reason}");
        unavailable(&self.stream, fault, reason)
    }
}

fn is_one_of(error: &ConsumerError, codes: &[ErrorCode]) -> bool {
    matches!(error.kind(), ConsumerErrorKind::JetStream(api) if codes.contains(&api.error_code()))
}

/// Identity of the event in a message; `None` for a message without one.
pub fn identity(headers: &HeaderMap) -> Option<(Uuid, Seq)> {
    let text = |name: &str| headers.get(name).map(async_nats::HeaderValue::as_str);
    let id = Uuid::try_parse(text("Nats-Msg-Id")?).ok()?;
    let seq = text("ce-sequence")?.parse().ok()?;
    Some((id, Seq(seq)))
}
