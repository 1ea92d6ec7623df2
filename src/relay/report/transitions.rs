//! Transitions of an instance between its phases, in the status, the metrics and the log.

use std::time::{Duration, Instant};

use tracing::{info, warn};

use super::{
    Reporter,
    heartbeat::Heartbeat,
    status::{LinkStatus, Phase},
};
use crate::{clock, findings::Blocker, metrics::Dependency};

impl Reporter {
    /// Notes a turn of the loop.
    pub(in crate::relay) fn turned(&self, now: Instant) {
        self.heartbeat.turn(now);
    }

    /// Heartbeat for waits outside of the loop.
    pub(in crate::relay) fn heartbeat(&self) -> Heartbeat {
        self.heartbeat.clone()
    }

    /// Notes the failure because of which the relay has no session or no lease.
    pub(in crate::relay) fn waits_for_postgres(
        &self,
        detail: String,
        hint: Option<String>,
        held_up: Option<Blocker>,
    ) {
        self.metrics.dependencies.lost(Dependency::Postgres);
        self.status.send_modify(|status| {
            status.postgres = LinkStatus::Down { detail, hint };
            status.held_up = held_up;
        });
    }

    /// Notes an open session with Postgres.
    pub(in crate::relay) fn session_opened(&self) {
        self.metrics.dependencies.connected(Dependency::Postgres);
        self.status.send_modify(|status| status.postgres = LinkStatus::Up);
    }

    /// Notes why the holding has ended. The relay acquires another one.
    pub(in crate::relay) fn holding_lost(&self, why: String) {
        warn!(error = %why, "the relay stopped leading; it tries to acquire the lease again");
        self.metrics.dependencies.lost(Dependency::Postgres);
        self.metrics.dependencies.standing_by();
        self.status.send_modify(|status| {
            status.postgres = LinkStatus::Down { detail: why, hint: None };
            status.enter(Phase::Starting);
        });
    }

    /// Notes another instance as the leader. Returns whether it was not noted before.
    pub(in crate::relay) fn stands_by(&self, leader: &str, lease: Duration) -> bool {
        self.metrics.dependencies.standing_by();
        self.status.send_if_modified(|status| {
            let is_news =
                status.phase != Phase::Standby || status.leader.as_deref() != Some(leader);
            status.enter(Phase::Standby);
            status.leader = Some(leader.to_owned());
            status.led_at = clock::now();
            status.lease = lease;
            is_news
        })
    }

    /// Notes that this instance has released its lease so that another instance leads. Its name is
    /// not known yet. `lease` is the length of the lease.
    pub(in crate::relay) fn yielded(&self, lease: Duration) {
        info!("released the lease of this shard to an instance that leads fewer shards");
        self.metrics.dependencies.standing_by();
        self.status.send_modify(|status| {
            status.enter(Phase::Standby);
            status.leader = None;
            status.led_at = clock::now();
            status.lease = lease;
        });
    }

    /// Notes that this instance leads under a new term.
    pub(in crate::relay) fn leads(&self, term: i64) {
        self.status.send_modify(|status| {
            status.enter(Phase::Relaying);
            status.failed = None;
            status.leader = None;
            status.held_up = None;
            status.term = term;
        });
    }

    /// Notes a sound log, which also means a working connection.
    pub(in crate::relay) fn log_verified(&self) {
        self.status.send_modify(|status| status.nats = LinkStatus::Up);
        self.metrics.dependencies.connected(Dependency::Nats);
    }

    /// Notes the end of the connection to the broker.
    pub(in crate::relay) fn connection_lost(&self) {
        self.metrics.dependencies.lost(Dependency::Nats);
        let detail = "connection lost, connecting again".to_owned();
        self.status.send_modify(|status| status.nats = LinkStatus::Down { detail, hint: None });
    }

    /// Notes that the next holding begins at once.
    pub(in crate::relay) fn starting_again(&self) {
        self.status.send_modify(|status| status.enter(Phase::Starting));
    }

    /// Notes that the relay was asked to stop.
    pub(in crate::relay) fn stopping(&self) {
        self.status.send_if_modified(|status| {
            let before = status.phase;
            status.phase = Phase::Stopping;
            before != Phase::Stopping
        });
    }

    /// Notes the end of the relay.
    pub(in crate::relay) fn stopped(&self) {
        self.status.send_modify(|status| status.enter(Phase::Stopped));
    }
}
