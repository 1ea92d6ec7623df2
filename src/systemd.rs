//! Notifications to systemd: ready, status, alive, stopping. Without `NOTIFY_SOCKET` nothing
//! happens.

use std::time::Duration;

use sd_notify::NotifyState;

/// The configuration is valid and the sockets are bound; servers may still be awaited.
pub fn ready() {
    notify(NotifyState::Ready);
}

/// The configuration is being read again; [`ready`] follows in any case.
pub fn reloading() {
    match NotifyState::monotonic_usec_now() {
        Ok(now) => notify_all(&[NotifyState::Reloading, now]),
        Err(_) => notify(NotifyState::Reloading),
    }
}

/// Sends the line that `systemctl status` shows.
pub fn status(text: &str) {
    // A line break would start another assignment.
    notify(NotifyState::Status(&text.replace(['\r', '\n'], " ")));
}

/// The orderly stop has begun.
pub fn stopping() {
    notify(NotifyState::Stopping);
}

/// The loop has turned since the last call; call it only then.
pub fn alive() {
    notify(NotifyState::Watchdog);
}

/// How often [`alive`] should be called: half of `WatchdogSec`, or `None` when nobody watches.
pub fn watchdog_interval() -> Option<Duration> {
    sd_notify::watchdog_enabled().map(|limit| limit / 2)
}

fn notify(state: NotifyState<'_>) {
    notify_all(&[state]);
}

fn notify_all(states: &[NotifyState<'_>]) {
    // A warning is not needed: systemd itself reports a unit whose signs of life are missing.
    if let Err(error) = sd_notify::notify(states) {
        tracing::debug!(%error, "systemd did not take a notification");
    }
}
