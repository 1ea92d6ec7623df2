//! Sees the broker's acknowledgements from outside, with the time at which each came.
//!
//! A message that a stream stores is also routed to plain subscribers, with its reply subject; the
//! acknowledgement goes to that subject. A listener to both knows which event was
//! acknowledged when, without a word from the relay.

use std::{collections::HashMap, time::Instant};

use anyhow::{Context as _, Result};
use async_nats::{ConnectOptions, Message, Subject, Subscriber};
use futures_util::StreamExt as _;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use crate::stage::{SUBJECTS, Stage};

/// Every client of these servers takes its answers below this.
const INBOXES: &str = "_INBOX.>";

/// More than may pile up while this process does not get a core.
const CAPACITY: usize = 65_536;

/// Listens in the background.
pub(crate) struct Acks {
    stop: CancellationToken,
    listening: JoinSet<HashMap<Uuid, Instant>>,
}

impl Acks {
    /// Begins to listen; what is published from now on is seen.
    pub(crate) async fn listen(stage: &Stage) -> Result<Self> {
        let options = ConnectOptions::new().subscription_capacity(CAPACITY);
        let client = options.connect(stage.brokers.first_url()?).await?;
        let events = client.subscribe(SUBJECTS).await?;
        let answers = client.subscribe(INBOXES).await?;
        // A round trip: the server knows of both.
        client.flush().await?;
        let stop = CancellationToken::new();
        let mut listening = JoinSet::new();
        let until = stop.clone();
        listening.spawn(async move {
            let seen = listen(events, answers, until).await;
            // The subscriptions last as long as the client.
            drop(client);
            seen.by_event()
        });
        Ok(Self { stop, listening })
    }

    /// Ends listening. Returns when the acknowledgement of each event came.
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
    /// An event that was sent twice counts with its first acknowledgement.
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
