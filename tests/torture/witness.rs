//! Witness: sees every publish as the broker passes it on, and the connection that it came over.
//!
//! The stream does not say who has published a message. The address for the acknowledgement does:
//! it is an inbox, and no two connections have the same one. A subscriber sees it, and sees also
//! what the stream drops as a duplicate.

use std::{
    sync::{Arc, Mutex, PoisonError},
    time::Instant,
};

use futures_util::StreamExt as _;
use tokio::task::JoinSet;

use super::support::Fixture;

/// Sees the publishes of one fixture from its start on. Ends when it is dropped.
pub(crate) struct Witness {
    seen: Arc<Mutex<Seen>>,
    _task: JoinSet<()>,
}

#[derive(Default)]
struct Seen {
    /// The inboxes of [`Witness::turns`], in the order of their first publish.
    inboxes: Vec<Box<str>>,
    /// Each publish: the place of its inbox, and when it came.
    publishes: Vec<(usize, Instant)>,
}

impl Seen {
    fn note(&mut self, inbox: &str) {
        let known = self.inboxes.iter().rposition(|known| **known == *inbox);
        let place = known.unwrap_or_else(|| {
            self.inboxes.push(inbox.into());
            self.inboxes.len() - 1
        });
        self.publishes.push((place, Instant::now()));
    }
}

impl Witness {
    /// Sees everything that is published once this returns.
    pub(crate) async fn start(fixture: &Fixture) -> Self {
        let mut watching = fixture.watch().await;
        let seen = Arc::new(Mutex::new(Seen::default()));
        let mut task = JoinSet::new();
        let notes = Arc::clone(&seen);
        task.spawn(async move {
            while let Some(message) = watching.next().await {
                // Inside of an atomic batch only some messages ask for an acknowledgement.
                let reply =
                    message.reply.as_deref().and_then(|reply| reply.strip_prefix("_INBOX."));
                if let Some(inbox) = reply.and_then(|reply| reply.split('.').next()) {
                    notes.lock().unwrap_or_else(PoisonError::into_inner).note(inbox);
                }
            }
        });
        Self { seen, _task: task }
    }

    /// When the first publish came, no earlier than `since`, over a connection with such an inbox.
    pub(crate) fn first_since(
        &self,
        since: Instant,
        is_wanted: impl Fn(&str) -> bool,
    ) -> Option<Instant> {
        let seen = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
        let wanted: Vec<bool> = seen.inboxes.iter().map(|inbox| is_wanted(inbox)).collect();
        let from = seen.publishes.partition_point(|(_, at)| *at < since);
        let later = seen.publishes.get(from..).unwrap_or_default();
        later.iter().find(|(place, _)| wanted.get(*place) == Some(&true)).map(|(_, at)| *at)
    }

    /// When the last publish came over a connection with such an inbox.
    pub(crate) fn last(&self, is_wanted: impl Fn(&str) -> bool) -> Option<Instant> {
        let seen = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
        let wanted: Vec<bool> = seen.inboxes.iter().map(|inbox| is_wanted(inbox)).collect();
        let mut latest = seen.publishes.iter().rev();
        latest.find(|(place, _)| wanted.get(*place) == Some(&true)).map(|(_, at)| *at)
    }

    /// The inboxes in the order in which they took turns, each with how many publishes it had in a
    /// row.
    pub(crate) fn turns(&self) -> Vec<(String, u64)> {
        let seen = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
        let runs = seen.publishes.chunk_by(|(one, _), (next, _)| one == next);
        let named = runs.filter_map(|run| {
            let inbox = seen.inboxes.get(run.first()?.0)?;
            Some((inbox.to_string(), run.len() as u64))
        });
        named.collect()
    }
}

/// The fewest publishes without which the instances take turns as their terms do. `runs` are an
/// instance and how many publishes it had in a row, `leaders` the instance of each term.
pub(crate) fn least_out_of_turn(runs: &[(usize, u64)], leaders: &[usize]) -> u64 {
    // For each term: the fewest so far, if the turn of that term has come.
    let mut fewest = vec![0; leaders.len()];
    for (instance, count) in runs {
        let mut before = u64::MAX;
        for (fewest, leader) in fewest.iter_mut().zip(leaders) {
            before = before.min(*fewest);
            *fewest = if leader == instance { before } else { before + count };
        }
    }
    fewest.into_iter().min().unwrap_or_default()
}
