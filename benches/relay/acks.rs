//! Watches the broker's acknowledgements from outside the relay, and notes when each came.
//!
//! A message that a stream stores also reaches plain subscribers, with its reply subject. The
//! acknowledgement goes to that subject. A client that subscribes to the events and to the reply
//! subjects learns when each event was acknowledged, without asking the relay.

use std::{collections::HashMap, time::Instant};

use anyhow::{Context as _, Result};
use async_nats::{ConnectOptions, Message, Subject, Subscriber};
use futures_util::StreamExt as _;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use crate::stage::{SUBJECTS, Stage};

/// Subject filter of the reply inboxes: every client of these servers receives its answers below
/// `_INBOX.`.
const INBOXES: &str = "_INBOX.>";

/// Capacity of each subscription, in messages. It is more than can pile up while this process does
/// not get a processor.
const CAPACITY: usize = 65_536;

/// Subscriber to events and acknowledgements, which collects in the background.
pub(crate) struct Acks {
    stop: CancellationToken,
    listening: JoinSet<HashMap<Uuid, Instant>>,
}

impl Acks {
    /// Begins to listen. Events that are published after this returns are seen.
    pub(crate) async fn listen(stage: &Stage) -> Result<Self> {
        let options = ConnectOptions::new().subscription_capacity(CAPACITY);
        let client = options.connect(stage.brokers.first_url()?).await?;
        let events = client.subscribe(SUBJECTS).await?;
        let answers = client.subscribe(INBOXES).await?;
        // After this round trip the server knows of both subscriptions.
        client.flush().await?;
        let stop = CancellationToken::new();
        let mut listening = JoinSet::new();
        let until = stop.clone();
        listening.spawn(async move {
            let seen = listen(events, answers, until).await;
            // The client is kept until here, because its subscriptions end with it.
            drop(client);
            seen.by_event()
        });
        Ok(Self { stop, listening })
    }

    /// Ends listening. Returns for each event the moment at which its first acknowledgement came.
    pub(crate) async fn collect(mut self) -> Result<HashMap<Uuid, Instant>> {
        self.stop.cancel();
        Ok(self.listening.join_next().await.context("the listener ended")??)
    }
}

#[derive(Default)]
struct Seen {
    published: Vec<(Subject, Uuid)>,
    answered: HashMap<String, Instant>,
}

async fn listen(mut events: Subscriber, mut answers: Subscriber, until: CancellationToken) -> Seen {
    let mut seen = Seen::default();
    loop {
        tokio::select! { biased;
            Some(event) = events.next() => {
                if let (Some(id), Some(reply)) = (id(&event), event.reply) {
                    seen.published.push((reply, id));
                }
            }
            Some(answer) = answers.next() => {
                seen.answered.insert(answer.subject.to_string(), Instant::now());
            }
            () = until.cancelled() => return seen,
        }
    }
}

fn id(event: &Message) -> Option<Uuid> {
    event.headers.as_ref()?.get("Nats-Msg-Id")?.as_str().parse().ok()
}

impl Seen {
    /// Maps each event to the time of its acknowledgement: the first one, when the event was sent
    /// twice.
    fn by_event(self) -> HashMap<Uuid, Instant> {
        let mut acked = HashMap::with_capacity(self.published.len());
        for (reply, id) in self.published {
            if let Some(at) = self.answered.get(reply.as_str()) {
                let first: &mut Instant = acked.entry(id).or_insert(*at);
                *first = (*first).min(*at);
            }
        }
        acked
    }
}
