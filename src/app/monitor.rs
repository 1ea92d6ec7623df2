//! Monitors the flows: reports their state to systemd, and logs the end of an outage.

use std::time::{Duration, Instant};

use tokio::time::interval;
use tokio_util::sync::CancellationToken;
use tracing::info;

use crate::{
    findings::Finding,
    relay::report::{flows::Flows, outage::Outages},
    systemd,
};

/// Longest interval between two reports to systemd.
const NOTIFY_INTERVAL: Duration = Duration::from_secs(5);

/// Interval at which the findings of each flow are read, to notice when an outage begins and ends.
const OUTAGE_INTERVAL: Duration = Duration::from_millis(500);

/// Longest pause of a relay's loop, exclusive. From then on systemd's watchdog gets no sign of
/// life, and systemd restarts the program.
const STUCK: Duration = Duration::from_secs(15);

/// Reports the state to systemd, and gives its watchdog a sign of life as long as the loop of every
/// relay turns.
pub(super) async fn report_to_systemd(flows: Flows, cancelled: CancellationToken) {
    let every = systemd::watchdog_interval().map_or(NOTIFY_INTERVAL, |watchdog| watchdog / 2);
    let mut ticks = interval(every.min(NOTIFY_INTERVAL));
    let mut before = (Instant::now(), 0);
    loop {
        tokio::select! {
            _ = ticks.tick() => {}
            () = cancelled.cancelled() => return,
        }
        let now = Instant::now();
        let flows = flows.seen();
        let seen = flows.sum();
        if seen.last_turn.age(now) < STUCK {
            systemd::alive();
        }
        let seconds = now.duration_since(before.0).as_secs_f64().max(0.001);
        let published =
            u32::try_from(seen.published_total.saturating_sub(before.1)).unwrap_or(u32::MAX);
        let rate = f64::from(published) / seconds;
        before = (now, seen.published_total);
        let findings = flows.findings(now);
        let worst = findings
            .first()
            .map(|Finding { code, cause, next, .. }| {
                format!("{}: {cause}; next: {next} | ", code.as_str())
            })
            .unwrap_or_default();
        systemd::status(&format!(
            "{}, {worst}{rate:.0} msg/s, lag {:.1} s, backlog {}, dlq {}",
            seen.phase.as_str(),
            seen.measured.oldest_seconds(now),
            seen.measured.depth.backlog(),
            seen.measured.depth.dead
        ));
    }
}

/// Logs at the end of a route's outage how long it took, and how many events waited.
pub(super) async fn log_outages(flows: Flows, cancelled: CancellationToken) {
    let mut ticks = interval(OUTAGE_INTERVAL);
    let mut outages: Vec<_> = flows.0.iter().map(|_| Outages::default()).collect();
    loop {
        tokio::select! {
            _ = ticks.tick() => {}
            () = cancelled.cancelled() => return,
        }
        let now = Instant::now();
        for (flow, outages) in flows.0.iter().zip(&mut outages) {
            let seen = flow.status.borrow().clone();
            // Events in memory count too: they are current while the measured backlog is old.
            let in_memory = u64::try_from(seen.waiting + seen.in_flight).unwrap_or(u64::MAX);
            let waiting = seen.measured.depth.backlog().max(in_memory);
            if let Some((outage, took)) = outages.observe(&seen.findings(now), waiting, now) {
                let codes: Vec<_> = outage.codes.iter().map(|code| code.as_str()).collect();
                info!(
                    route = (flows.0.len() > 1).then_some(flow.route.as_str()),
                    causes = codes.join(", "),
                    waited_at_least = outage.waited_at_least.max(waiting),
                    "the outage is over after {}: events are published again",
                    humantime::format_duration(Duration::from_secs(took.as_secs()))
                );
            }
        }
    }
}
