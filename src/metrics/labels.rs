//! The values that labels can have: enums, so that no metric grows without bound.

use std::fmt::{self, Write};

use prometheus_client::encoding::{EncodeLabelSet, EncodeLabelValue, LabelValueEncoder};

macro_rules! label {
    ($(#[$doc:meta])* $name:ident { $($(#[$variant_doc:meta])* $variant:ident = $text:literal,)+ }) => {
        $(#[$doc])*
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
        pub enum $name { $($(#[$variant_doc])* $variant,)+ }

        impl $name {
            /// Every value, in the order of the documentation.
            pub const ALL: &[Self] = &[$(Self::$variant),+];

            /// Text of the label's value, as metrics show it.
            pub fn as_str(self) -> &'static str {
                match self { $(Self::$variant => $text,)+ }
            }
        }

        impl EncodeLabelValue for $name {
            fn encode(&self, encoder: &mut LabelValueEncoder<'_>) -> Result<(), fmt::Error> {
                encoder.write_str(self.as_str())
            }
        }
    };
}

label! {
    /// A server that the program needs.
    Dependency {
        /// The Postgres database that contains the outbox.
        Postgres = "postgres",
        /// The broker, which is a NATS server.
        Nats = "nats",
    }
}

label! {
    /// The reason why a message was not acknowledged. [`Failure::retryable`] alone decides which of
    /// these messages may be stored later.
    Failure {
        /// No answer came in time, or the connection broke. The message is sent again under the
        /// same id.
        Unconfirmed = "unconfirmed",
        /// The broker refused the message for now; it is published again after a wait.
        Busy = "busy",
        /// The stream does not answer.
        StreamUnavailable = "stream_unavailable",
        /// The stream cannot take events with its present settings.
        Misconfigured = "misconfigured",
        /// The server forbids us to publish.
        PermissionDenied = "permission_denied",
        /// The broker is connected and answers no request.
        BrokerStalled = "broker_stalled",
        /// The broker answers requests and acknowledges no message.
        StoreStalled = "store_stalled",
        /// The stream lost messages that it had acknowledged.
        BrokerRegressed = "broker_regressed",
        /// The broker can never store this message.
        Rejected = "rejected",
        /// The event cannot become a message; nothing was sent.
        Refused = "refused",
    }
}

impl Failure {
    /// Whether the same message may be stored later.
    pub fn retryable(self) -> Retryable {
        match self {
            Self::Unconfirmed
            | Self::Busy
            | Self::StreamUnavailable
            | Self::Misconfigured
            | Self::PermissionDenied
            | Self::BrokerStalled
            | Self::StoreStalled
            | Self::BrokerRegressed => Retryable::Yes,
            Self::Rejected | Self::Refused => Retryable::No,
        }
    }
}

label! {
    /// The result of a batch.
    BatchResult {
        /// The stream contains the whole batch.
        Committed = "committed",
        /// The broker refused the batch. Of an atomic batch it stored nothing, of a fast batch
        /// perhaps a part. The events were then sent one by one.
        Refused = "refused",
        /// No answer came in time, the answer left open what is stored, or the connection broke.
        /// The events were then sent one by one, under the same ids.
        Unconfirmed = "unconfirmed",
    }
}

label! {
    /// Whether a message that was not acknowledged may be stored later.
    Retryable {
        /// The message may be stored later: its event stays pending.
        Yes = "true",
        /// The message can never be stored: its event becomes a dead letter.
        No = "false",
    }
}

label! {
    /// State of the breaker that stops messages to a broker in trouble.
    CircuitState {
        /// The breaker is closed: messages are sent as usual.
        Closed = "closed",
        /// The breaker is open: no message is sent.
        Open = "open",
        /// The breaker is half open: a single message is in flight, as a probe of the broker.
        HalfOpen = "half_open",
    }
}

label! {
    /// The statements that the relay runs at the application's database.
    Query {
        /// Reads the next rows of the outbox.
        Fetch = "fetch",
        /// Writes the position, and the letters that it passes over.
        Settle = "settle",
        /// Reads blocked keys and due letters, and records what became of letters.
        Letters = "letters",
        /// Acquires, renews, reads and releases the lease with its term.
        Lock = "lock",
        /// Measures backlog, lag and dead letters for these metrics.
        Depth = "depth",
        /// Opens or closes the wake-up gate, and looks for open transactions that may not have seen
        /// it open.
        Gate = "gate",
        /// Truncates the parts of the outbox whose rows were settled long enough ago.
        Retention = "retention",
        /// Finds which messages of the stream are events of this outbox.
        Scan = "scan",
    }
}

label! {
    /// A chore: work beside the data path. Each chore fails alone.
    Chore {
        /// Measures the backlog, for these metrics.
        Depth = "depth",
        /// Writes the leader's state for `postrider status`.
        Note = "note",
        /// Takes the checkpoints from which a broker can be healed.
        Checkpoint = "checkpoint",
        /// Truncates published, old rows of the outbox.
        Retention = "retention",
        /// Deletes old resolved letters and old rows of the audit.
        Letters = "letters",
        /// Deletes old keys by which consumers recognise events.
        ConsumerKeys = "consumer_keys",
        /// Finds the grants that the relay's user lacks.
        Grants = "grants",
        /// Finds positions of other relays that no instance runs.
        Positions = "positions",
        /// Finds applications that cannot insert events.
        Producers = "producers",
    }
}

label! {
    /// A measurement that is repeated at an interval.
    Measurement {
        /// The backlog and the number of letters.
        Depth = "depth",
    }
}

label! {
    /// The code of a finding. `docs/operations.md` has a section for each.
    FindingCode {
        /// The relay has never run.
        NeverStarted = "never_started",
        /// No instance leads the relay.
        NoLeader = "no_leader",
        /// The instance that leads has not reported for long.
        LeaderSilent = "leader_silent",
        /// The instance starts: it gets its session with Postgres and its position.
        Starting = "starting",
        /// A route has failed and waits to be started again.
        RouteFailed = "route_failed",
        /// The instance is stopping.
        Stopping = "stopping",
        /// No session with Postgres stands.
        PostgresDown = "postgres_down",
        /// Postgres is up and a grant is missing.
        PermissionMissing = "permission_missing",
        /// A lock of another session keeps the relay's session waiting.
        PostgresLocked = "postgres_locked",
        /// Applications cannot insert events.
        ProducersHindered = "producers_hindered",
        /// No connection to NATS stands.
        NatsDown = "nats_down",
        /// The stream does not take messages now.
        StreamUnavailable = "stream_unavailable",
        /// The settings of the stream do not fit the route.
        Misconfigured = "misconfigured",
        /// The NATS server forbids a request or a publish that the relay needs.
        PermissionDenied = "permission_denied",
        /// NATS is connected and answers no request.
        BrokerStalled = "broker_stalled",
        /// NATS answers requests and acknowledges no message.
        StoreStalled = "store_stalled",
        /// The stream lost messages that it had acknowledged.
        BrokerRegressed = "broker_regressed",
        /// The stream is scanned for events that may have been published before.
        Scanning = "scanning",
        /// Published events are gone from the stream and from the outbox.
        EventsLost = "events_lost",
        /// The outbox violates a condition that the reader depends on.
        ContractBroken = "contract_broken",
        /// A reported finding whose code this version of the program does not have.
        Other = "other",
        /// Events wait, and the stream confirms none.
        Stalled = "stalled",
        /// Events have waited to be published for long.
        Lagging = "lagging",
        /// Letters are retrying: the relay tries them again by itself.
        LettersRetrying = "letters_retrying",
        /// Dead letters wait for the decision of an operator.
        DeadLetters = "dead_letters",
        /// Events were committed that no route takes.
        Unrouted = "unrouted",
        /// Backlog and age were last measured too long ago to be trusted.
        Unmeasured = "unmeasured",
        /// A chore fails again and again.
        ChoreFailing = "chore_failing",
        /// A position that no instance runs keeps the outbox from being truncated.
        PositionAbandoned = "position_abandoned",
    }
}

label! {
    /// The state of an unresolved letter.
    LetterState {
        /// The letter waits for its next attempt, which the relay makes by itself.
        Retrying = "retrying",
        /// The letter waits for an earlier letter of its key.
        Held = "held",
        /// The letter waits for the decision of an operator.
        Dead = "dead",
    }
}

label! {
    /// The tables that the relay reads events from.
    Table {
        /// The table `outbox`, the only one.
        Outbox = "outbox",
    }
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
pub(super) struct TableLabel {
    pub(super) table: Table,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
pub(super) struct QueryLabel {
    pub(super) query: Query,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
pub(super) struct ChoreLabel {
    pub(super) chore: Chore,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
pub(super) struct MeasurementLabel {
    pub(super) measurement: Measurement,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
pub(super) struct LetterStateLabel {
    pub(super) state: LetterState,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
pub(super) struct FindingLabel {
    pub(super) code: FindingCode,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
pub(super) struct DependencyLabel {
    pub(super) dependency: Dependency,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
pub(super) struct CircuitLabel {
    pub(super) dependency: Dependency,
    pub(super) state: CircuitState,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
pub(super) struct FailureLabel {
    pub(super) error_type: Failure,
    pub(super) retryable: Retryable,
}

impl FailureLabel {
    pub(super) fn of(failure: Failure) -> Self {
        Self { error_type: failure, retryable: failure.retryable() }
    }
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
pub(super) struct BatchLabel {
    pub(super) result: BatchResult,
}

/// The label with the code of a letter, such as `invalid_subject`. Codes are constants of this
/// program, so their number is bounded.
#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
pub(super) struct ReasonLabel {
    pub(super) reason: &'static str,
}
