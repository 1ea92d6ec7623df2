//! Verifies, scans and publishes to the JetStream stream of a flow.

use std::time::{Duration, Instant};

use async_nats::jetstream::Context;
use futures_util::{FutureExt as _, future::BoxFuture};
use tokio::sync::mpsc;
use tracing::debug;

use super::{
    NatsConnection, Publisher, StreamScan,
    fault::{Fault, gone, named, unavailable},
    stored_message::message_at,
    stream::verify,
};
use crate::{
    broker::{Absorbed, BrokerError, Creation, LogFacts, NotSent, StoredMessage, VerifiedLog},
    config,
    delivery::{BatchKind, StreamMark, Ticket},
    wire::{Message, SubjectTemplate},
};

/// JetStream sink: a stream, and the publisher to it.
#[derive(Debug)]
pub struct JetStreamSink {
    publisher: Publisher,
    stream: config::StreamConfig,
    template: SubjectTemplate,
    ack_timeout: Duration,
}

impl JetStreamSink {
    /// A sink that waits for its first connection.
    pub fn new(
        connections: mpsc::Receiver<NatsConnection>,
        stream: config::StreamConfig,
        template: SubjectTemplate,
        ack_timeout: Duration,
        now: Instant,
    ) -> Self {
        let publisher = Publisher::new(connections, stream.name.clone(), ack_timeout, now);
        Self { publisher, stream, template, ack_timeout }
    }

    /// Text that names the stream, such as `stream "EVENTS"`.
    pub fn log(&self) -> String {
        named(&self.stream.name)
    }

    /// Verifies the stream, and creates it when that is allowed. `mark` names the message that the
    /// stream acknowledged last. `None` without a connection.
    pub fn verify(
        &self,
        mark: StreamMark,
        creation: Creation,
    ) -> Option<BoxFuture<'static, Result<VerifiedLog, BrokerError>>> {
        let jetstream = self.publisher.jetstream()?.clone();
        let (mut stream, template) = (self.stream.clone(), self.template.clone());
        stream.create = stream.create && creation == Creation::Allowed;
        let ack_timeout = self.ack_timeout;
        let verifying = async move {
            let verified = verify(&jetstream, &stream, &template, ack_timeout).await;
            let is_gone = creation == Creation::Forbidden
                && matches!(verified, Err(BrokerError::Missing { .. }));
            let facts = if is_gone { Err(gone(&stream)) } else { verified }?;
            let is_rewritten = is_rewritten(&jetstream, &stream.name, &facts, mark).await;
            Ok(VerifiedLog { facts, acked: mark.acked, is_rewritten })
        };
        Some(verifying.boxed())
    }

    /// Takes over the stream's JetStream domain from the last verification. From then on an
    /// acknowledgement that names another domain is refused.
    pub fn adopt(&mut self, facts: &LogFacts) {
        self.publisher.set_domain(facts.domain.clone());
    }

    /// Scans the stream above a sequence. `None` without a connection.
    pub fn scan(&self, above: u64) -> Option<StreamScan> {
        let jetstream = self.publisher.jetstream()?.clone();
        Some(StreamScan::new(jetstream, self.stream.name.clone(), above))
    }

    /// Reads the message under a sequence. `None` without a connection.
    pub fn message_at(
        &self,
        seq: u64,
    ) -> Option<BoxFuture<'static, Result<Option<StoredMessage>, BrokerError>>> {
        let jetstream = self.publisher.jetstream()?.clone();
        let stream = self.stream.name.clone();
        Some(async move { message_at(&jetstream, &stream, seq).await }.boxed())
    }

    /// Error for a request that the server forbids, with the text of its complaint.
    pub fn denied(&self, complaint: String) -> BrokerError {
        unavailable(&self.stream.name, Fault::Denied, complaint)
    }

    /// Hands a message to the NATS client and returns at once.
    ///
    /// # Errors
    /// [`NotSent`] says whether it may go later.
    pub fn publish(
        &mut self,
        ticket: Ticket,
        message: Message,
        now: Instant,
    ) -> Result<(), NotSent> {
        self.publisher.publish(ticket, message, now)
    }

    /// Hands a batch to the NATS client and returns at once.
    ///
    /// # Errors
    /// When the batch was handed over in part only, or not at all.
    pub fn publish_batch(
        &mut self,
        kind: BatchKind,
        tickets: Box<[Ticket]>,
        messages: Vec<Message>,
        now: Instant,
    ) -> Result<(), NotSent> {
        self.publisher.publish_batch(kind, tickets, messages, now)
    }

    /// Waits for the next answer, or for a change of the connection.
    ///
    /// # Cancel safety
    /// Dropping the future loses nothing.
    pub async fn next(&mut self) -> Absorbed {
        self.publisher.next().await
    }

    /// Takes the next answer that has already come; `None` when there is none.
    pub fn try_next(&mut self, now: Instant) -> Option<Absorbed> {
        self.publisher.try_next(now)
    }

    /// Stops waiting for the answers to the batches that contain an event for which `has` is true.
    pub fn give_up_batches(&mut self, has: impl Fn(Ticket) -> bool) {
        self.publisher.give_up_batches(has);
    }

    /// Stops waiting for the answer to a publish that the server has already denied by a complaint.
    pub fn answered_otherwise(&mut self, ticket: Ticket) {
        self.publisher.answered_otherwise(ticket);
    }

    /// Forgets every publish in flight: the sink no longer waits for their answers.
    pub fn forget(&mut self) {
        self.publisher.forget();
    }

    /// Gives up a connection over which no answer comes. Another connection follows.
    pub fn reconnect(&self) {
        self.publisher.reconnect();
    }

    /// Gives up the connection, with the messages in the client's queue. Every publish in flight is
    /// unconfirmed.
    pub fn abandon_connection(&mut self) {
        self.publisher.abandon_connection();
    }
}

/// Whether the last acknowledged sequence of the stream now has another message than ours. A
/// message that the stream's limits have removed proves nothing.
async fn is_rewritten(
    jetstream: &Context,
    stream: &str,
    facts: &LogFacts,
    mark: StreamMark,
) -> bool {
    let Some(id) = mark.event_id else { return false };
    if mark.acked < facts.first_seq || mark.acked > facts.last_seq {
        return false;
    }
    match message_at(jetstream, stream, mark.acked).await {
        Ok(message) => message.is_some_and(|message| message.event_id != Some(id)),
        Err(error) => {
            // A user without the permission to read messages can publish all the same. Only this
            // check is lost.
            debug!(%error, "could not read the message that was acknowledged last; this check cannot tell whether the stream has lost events");
            false
        }
    }
}
