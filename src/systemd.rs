//! Notifications to systemd: ready, status, alive, stopping. Without `NOTIFY_SOCKET` nothing
//! happens.

use std::time::Duration;

use sd_notify::NotifyState;

/// Reports that the program is ready: the configuration is valid, and the tasks run. Postgres and
/// NATS may still be down.
pub fn ready() {
    notify(NotifyState::Ready);
}

/// Reports that the configuration is being read again. The caller calls [`ready`] afterwards,
/// whether or not the new configuration is valid.
pub fn reloading() {
    match NotifyState::monotonic_usec_now() {
        Ok(now) => notify_all(&[NotifyState::Reloading, now]),
        Err(_) => notify(NotifyState::Reloading),
    }
}

/// Sends the line that `systemctl status` shows.
pub fn status(text: &str) {
    // In the notification protocol a line break would start another assignment.
    notify(NotifyState::Status(&text.replace(['\r', '\n'], " ")));
}

/// Reports that the orderly stop has begun.
pub fn stopping() {
    notify(NotifyState::Stopping);
}

/// Sends systemd's watchdog a sign of life. Call it only while the loop of every relay turns.
pub fn alive() {
    notify(NotifyState::Watchdog);
}

/// How often [`alive`] should be called: half of `WatchdogSec`, or `None` when the unit has no
/// watchdog.
pub fn watchdog_interval() -> Option<Duration> {
    sd_notify::watchdog_enabled().map(|limit| limit / 2)
}

fn notify(state: NotifyState<'_>) {
    notify_all(&[state]);
}

fn notify_all(states: &[NotifyState<'_>]) {
    // A notification that fails needs no warning: systemd itself reports a unit whose signs of life
    // are missing.
    if let Err(error) = sd_notify::notify(states) {
        tracing::debug!(%error, "systemd did not take a notification");
    }
}
