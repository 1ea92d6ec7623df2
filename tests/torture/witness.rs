//! Witness of the torture suite: sees every publish as the broker forwards it, with the connection
//! that sent it.
//!
//! A stored message does not say which connection published it. Its reply subject does: it is an
//! inbox, and each connection has inboxes of its own. A plain subscriber sees the reply subject,
//! also of messages that the stream drops as duplicates.

use std::{
    sync::{Arc, Mutex, PoisonError},
    time::Instant,
};

use futures_util::StreamExt as _;
use tokio::task::JoinSet;

use super::support::Fixture;

/// Subscriber to all publishes of one fixture from its start on. Dropping the value ends it.
pub(crate) struct Witness {
    seen: Arc<Mutex<Seen>>,
    _task: JoinSet<()>,
}

#[derive(Default)]
struct Seen {
    /// Inboxes that have published, in the order of their first publish.
    inboxes: Vec<Box<str>>,
    /// Publishes: the index of the inbox in `inboxes`, and the time of arrival.
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
    /// Starts a witness. It sees every message that is published after this returns.
    pub(crate) async fn start(fixture: &Fixture) -> Self {
        let mut watching = fixture.watch().await;
        let seen = Arc::new(Mutex::new(Seen::default()));
        let mut task = JoinSet::new();
        let notes = Arc::clone(&seen);
        task.spawn(async move {
            while let Some(message) = watching.next().await {
                // In an atomic batch only some messages have a reply subject, and the others are
                // not recorded.
                let reply =
                    message.reply.as_deref().and_then(|reply| reply.strip_prefix("_INBOX."));
                if let Some(inbox) = reply.and_then(|reply| reply.split('.').next()) {
                    notes.lock().unwrap_or_else(PoisonError::into_inner).note(inbox);
                }
            }
        });
        Self { seen, _task: task }
    }

    /// Time of the first publish at or after `since` by an inbox for which `is_wanted` is true.
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

    /// Time of the last publish by an inbox for which `is_wanted` is true.
    pub(crate) fn last(&self, is_wanted: impl Fn(&str) -> bool) -> Option<Instant> {
        let seen = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
        let wanted: Vec<bool> = seen.inboxes.iter().map(|inbox| is_wanted(inbox)).collect();
        let mut latest = seen.publishes.iter().rev();
        latest.find(|(place, _)| wanted.get(*place) == Some(&true)).map(|(_, at)| *at)
    }

    /// Inboxes in the order in which they published, each with the number of its publishes in a
    /// row. An inbox may occur several times.
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

/// Smallest number of publishes that must be left out for the instances to publish in the order of
/// their terms. Each of `runs` is an instance and the number of its publishes in a row. `leaders`
/// has the instance of each term.
pub(crate) fn least_out_of_turn(runs: &[(usize, u64)], leaders: &[usize]) -> u64 {
    // For each term: the smallest number so far, if that term has begun.
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
