//! Background tasks that have names, are counted, and are awaited at the end.
//!
//! This is the only place that calls `tokio::spawn`. A task that panics takes the program with it,
//! whatever the build profile says: a daemon that lives on without one of its tasks is worse than a
//! restart.

use std::{
    collections::BTreeMap,
    panic::AssertUnwindSafe,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use futures_util::FutureExt as _;
use tokio_util::{sync::CancellationToken, task::TaskTracker};

/// The tasks of one program, and the one signal that ends them. Clones share both.
#[derive(Debug, Clone, Default)]
pub struct Tasks {
    tracker: TaskTracker,
    cancelled: CancellationToken,
    running: Arc<Mutex<BTreeMap<&'static str, usize>>>,
}

/// Tasks that did not end in time.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[error("still running after {waited:?}: {}", names.join(", "))]
pub struct Unfinished {
    /// The names of these tasks. A name that several tasks share appears once.
    pub names: Vec<&'static str>,
    /// How long the program has waited for these tasks.
    pub waited: Duration,
}

impl Tasks {
    /// Creates an empty set of tasks.
    pub fn new() -> Self {
        Self::default()
    }

    /// The token that is cancelled when all tasks are asked to end.
    pub fn cancelled(&self) -> CancellationToken {
        self.cancelled.clone()
    }

    /// Signals every task to end; those that watch [`cancelled`](Self::cancelled) do.
    pub fn cancel(&self) {
        self.cancelled.cancel();
    }

    /// Starts a task under a name that a person understands in a log line.
    pub fn spawn(&self, name: &'static str, task: impl Future<Output = ()> + Send + 'static) {
        let presence = Presence::new(name, &self.running);
        self.spawn_tracked(async move {
            abort_on_panic(task).await;
            drop(presence);
        });
    }

    #[expect(clippy::disallowed_methods, reason = "the tracker awaits what is spawned here")]
    fn spawn_tracked(&self, task: impl Future<Output = ()> + Send + 'static) {
        tokio::spawn(self.tracker.track_future(task));
    }

    /// The names of the tasks that run now.
    pub fn running(&self) -> Vec<&'static str> {
        self.running.lock().unwrap_or_else(PoisonError::into_inner).keys().copied().collect()
    }

    /// Waits for the end of all tasks; it does not [`cancel`](Self::cancel) them.
    ///
    /// # Errors
    /// [`Unfinished`] names the tasks that did not end within `deadline`; they still run.
    ///
    /// # Cancel safety
    /// Dropping the future loses nothing; the call may be repeated.
    pub async fn finish(&self, deadline: Duration) -> Result<(), Unfinished> {
        self.tracker.close();
        tokio::time::timeout(deadline, self.tracker.wait())
            .await
            .map_err(|_| Unfinished { names: self.running(), waited: deadline })
    }
}

/// Starts the task that moves the bytes of a connection. It ends once the connection's other half,
/// by which the program uses it, is dropped; so it is not awaited.
#[expect(clippy::disallowed_methods, reason = "its owner is the connection's other half")]
pub fn drive(connection: impl Future<Output = ()> + Send + 'static) {
    tokio::spawn(abort_on_panic(connection));
}

async fn abort_on_panic(task: impl Future<Output = ()>) {
    // The panic's message was printed already, by the panic hook. So the process only aborts.
    if AssertUnwindSafe(task).catch_unwind().await.is_err() {
        std::process::abort();
    }
}

/// Entry of a running task in the list of names. Dropping it removes the entry.
#[derive(Debug)]
struct Presence {
    name: &'static str,
    running: Arc<Mutex<BTreeMap<&'static str, usize>>>,
}

impl Presence {
    fn new(name: &'static str, running: &Arc<Mutex<BTreeMap<&'static str, usize>>>) -> Self {
        let running = Arc::clone(running);
        *running.lock().unwrap_or_else(PoisonError::into_inner).entry(name).or_default() += 1;
        Self { name, running }
    }
}

impl Drop for Presence {
    fn drop(&mut self) {
        let mut running = self.running.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(count) = running.get_mut(self.name) {
            *count -= 1;
            if *count == 0 {
                running.remove(self.name);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_task_that_watches_the_signal_is_awaited() {
        let tasks = Tasks::new();
        let cancelled = tasks.cancelled();
        tasks.spawn("obedient", async move { cancelled.cancelled().await });
        assert_eq!(tasks.running(), ["obedient"]);
        tasks.cancel();
        tasks.finish(Duration::from_mins(1)).await.unwrap();
        assert!(tasks.running().is_empty());
    }

    #[tokio::test]
    async fn a_task_that_hangs_is_named_at_the_deadline() {
        let tasks = Tasks::new();
        tasks.spawn("deaf", std::future::pending());
        tasks.spawn("deaf", std::future::pending());
        tasks.spawn("quick", async {});
        tasks.cancel();
        let unfinished = tasks.finish(Duration::from_millis(50)).await.unwrap_err();
        assert_eq!(unfinished.to_string(), "still running after 50ms: deaf");
    }
}
