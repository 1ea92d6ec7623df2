//! The two stages of stopping: gracefully at the first signal, at once at the second.

use std::{future::Future, io};

use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

/// Whether and how the program is asked to stop. Every task watches it; clones share it.
#[derive(Debug, Clone, Default)]
pub struct Shutdown {
    stop: CancellationToken,
    now: CancellationToken,
}

impl Shutdown {
    /// Creates the state in which no stop was asked for.
    pub fn new() -> Self {
        Self::default()
    }

    /// Asks everything to finish what it has begun. Asking again changes nothing.
    pub fn stop(&self) {
        self.stop.cancel();
    }

    /// Asks everything to end without finishing.
    pub fn stop_now(&self) {
        self.stop.cancel();
        self.now.cancel();
    }

    /// Whether a stop was asked for.
    pub fn is_stopping(&self) -> bool {
        self.stop.is_cancelled()
    }

    /// Waits until a stop is asked for.
    ///
    /// # Cancel safety
    ///
    /// Dropping it loses nothing; the stop stays asked for.
    pub async fn stopping(&self) {
        self.stop.cancelled().await;
    }

    /// Waits until everything is asked to end at once.
    ///
    /// # Cancel safety
    ///
    /// Dropping it loses nothing.
    pub async fn at_once(&self) {
        self.now.cancelled().await;
    }

    /// The graceful stop as a token, for functions that take a `CancellationToken`.
    pub fn token(&self) -> CancellationToken {
        self.stop.clone()
    }

    /// Registers for SIGTERM and SIGINT at once, and returns the future that obeys them: run it
    /// beside everything else. The future ends after the second signal, or once all tasks are asked
    /// to end at once.
    ///
    /// # Errors
    ///
    /// The system refuses the registration. Without it a signal would end the process at once,
    /// without a graceful stop.
    pub fn obey_signals(&self) -> io::Result<impl Future<Output = ()> + Send + use<>> {
        let mut terminate = signal(SignalKind::terminate())?;
        let mut interrupt = signal(SignalKind::interrupt())?;
        let shutdown = self.clone();
        Ok(async move {
            tokio::select! {
                name = either(&mut terminate, &mut interrupt) => {
                    info!(signal = name, "stopping; a second signal stops at once");
                    shutdown.stop();
                }
                () = shutdown.stopping() => {}
            }
            tokio::select! {
                name = either(&mut terminate, &mut interrupt) => {
                    warn!(
                        signal = name,
                        "stopping at once; what is unconfirmed is sent again after the next start"
                    );
                    shutdown.stop_now();
                }
                () = shutdown.at_once() => {}
            }
        })
    }
}

async fn either(terminate: &mut Signal, interrupt: &mut Signal) -> &'static str {
    tokio::select! {
        _ = terminate.recv() => "SIGTERM",
        _ = interrupt.recv() => "SIGINT",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn graceful_stop_does_not_end_what_runs_at_once() {
        let shutdown = Shutdown::new();
        let seen_elsewhere = shutdown.clone();
        assert!(!seen_elsewhere.is_stopping());
        shutdown.stop();
        seen_elsewhere.stopping().await;
        assert!(!seen_elsewhere.now.is_cancelled());
        shutdown.stop_now();
        seen_elsewhere.at_once().await;
    }

    // Regression: the signal task waited for a second signal, so each stop waited for this task
    // until `TASKS_GRACE` was over.
    #[tokio::test]
    async fn signals_are_not_waited_for_once_everything_has_ended() {
        let shutdown = Shutdown::new();
        let obeying = shutdown.obey_signals().unwrap();
        shutdown.stop_now();
        tokio::time::timeout(std::time::Duration::from_mins(1), obeying).await.unwrap();
    }
}
