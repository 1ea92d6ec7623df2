//! Metrics of the connections to Postgres and NATS, of the breaker in front of the broker, and of
//! the lease.

use std::sync::atomic::{AtomicBool, Ordering};

use prometheus_client::{
    metrics::{counter::Counter, family::Family, gauge::Gauge},
    registry::Registry,
};

use super::labels::{CircuitLabel, CircuitState, Dependency, DependencyLabel};

/// The metrics of both connections, of the breaker and of the lease.
#[derive(Debug)]
pub struct DependencyMetrics {
    postgres: LinkMetrics,
    nats: LinkMetrics,
    circuit: Family<CircuitLabel, Gauge>,
    leader: Gauge,
    leader_transitions: Counter,
}

/// The metrics of one connection.
#[derive(Debug)]
struct LinkMetrics {
    up: Gauge,
    reconnects: Counter,
    was_up: AtomicBool,
}

impl DependencyMetrics {
    pub(super) fn register(list: &mut Registry) -> Self {
        let up = Family::<DependencyLabel, Gauge>::default();
        let reconnects = Family::<DependencyLabel, Counter>::default();
        let link = |dependency| LinkMetrics {
            up: up.get_or_create_owned(&DependencyLabel { dependency }),
            reconnects: reconnects.get_or_create_owned(&DependencyLabel { dependency }),
            was_up: AtomicBool::new(false),
        };
        let this = Self {
            postgres: link(Dependency::Postgres),
            nats: link(Dependency::Nats),
            circuit: Family::default(),
            leader: Gauge::default(),
            leader_transitions: Counter::default(),
        };
        this.circuit(CircuitState::Closed);
        list.register("dependency_up", "1 while connected", up);
        list.register("dependency_reconnects", "Connections made after the first", reconnects);
        list.register(
            "circuit_state",
            "1 for the state that the breaker is in",
            this.circuit.clone(),
        );
        list.register("leader", "1 while this instance relays", this.leader.clone());
        list.register(
            "leader_transitions",
            "How often this instance took or lost the lease",
            this.leader_transitions.clone(),
        );
        this
    }

    /// Notes that a connection stands. A second call changes nothing.
    pub fn connected(&self, dependency: Dependency) {
        let link = self.link(dependency);
        let was_down = link.up.set(1) == 0;
        if link.was_up.swap(true, Ordering::Relaxed) && was_down {
            link.reconnects.inc();
        }
    }

    /// Notes the loss of a connection.
    pub fn lost(&self, dependency: Dependency) {
        self.link(dependency).up.set(0);
    }

    /// Sets the state of the breaker in front of the broker.
    pub fn circuit(&self, now: CircuitState) {
        for state in CircuitState::ALL {
            let label = CircuitLabel { dependency: Dependency::Nats, state: *state };
            self.circuit.get_or_create(&label).set(i64::from(*state == now));
        }
    }

    /// Notes that this instance acquired the lease.
    pub fn leading(&self) {
        if self.leader.set(1) == 0 {
            self.leader_transitions.inc();
        }
    }

    /// Notes that this instance does not have the lease, or has lost it.
    pub fn standing_by(&self) {
        if self.leader.set(0) == 1 {
            self.leader_transitions.inc();
        }
    }

    fn link(&self, dependency: Dependency) -> &LinkMetrics {
        match dependency {
            Dependency::Postgres => &self.postgres,
            Dependency::Nats => &self.nats,
        }
    }
}
