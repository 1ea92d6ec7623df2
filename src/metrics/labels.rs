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

            /// The value as it is exported.
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
    /// What the program needs to do its work.
    Dependency {
        /// The database with the outbox.
        Postgres = "postgres",
        /// The broker.
        Nats = "nats",
    }
}

label! {
    /// Why a publish was not confirmed. Which of them are retryable is decided here, once.
    Failure {
        /// No answer in time, or the connection broke: sent again under the same id.
        Unconfirmed = "unconfirmed",
        /// The broker asked for patience.
        Busy = "busy",
        /// The stream does not answer.
        StreamUnavailable = "stream_unavailable",
        /// The stream will not take events as it is set up.
        Misconfigured = "misconfigured",
        /// The server forbids us to publish.
        PermissionDenied = "permission_denied",
        /// Connected, and nothing is answered.
        BrokerStalled = "broker_stalled",
        /// Questions are answered, and no publish is.
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
    /// What became of a batch.
    BatchResult {
        /// The stream holds all of it.
        Committed = "committed",
        /// The broker took none of it, of a fast one maybe a part; its events went one by one.
        Refused = "refused",
        /// No answer in time or one that leaves open what is stored, or the connection broke; its events
        /// went one by one, under the same ids.
        Unconfirmed = "unconfirmed",
    }
}

label! {
    /// Whether the same message may be stored later.
    Retryable {
        /// It stays pending.
        Yes = "true",
        /// It becomes a dead letter.
        No = "false",
    }
}

label! {
    /// The breaker in front of a dependency.
    CircuitState {
        /// Traffic flows.
        Closed = "closed",
        /// Nothing is sent.
        Open = "open",
        /// One probe is under way.
        HalfOpen = "half_open",
    }
}

label! {
    /// The statements that the relay runs at the application's database.
    Query {
        /// The next rows.
        Fetch = "fetch",
        /// The position and its letters.
        Settle = "settle",
        /// The letters that are tried again.
        Letters = "letters",
        /// The lock and the term.
        Lock = "lock",
        /// Backlog, lag and dead letters for these metrics.
        Depth = "depth",
        /// The wake-up gate.
        Gate = "gate",
        /// Truncating what is settled and old.
        Retention = "retention",
        /// Which messages of the stream are events of this outbox.
        Scan = "scan",
    }
}

label! {
    /// What is looked after beside the data path, each by itself.
    Chore {
        /// How much waits, for these metrics.
        Depth = "depth",
        /// What `postrider status` shows of the relay that runs.
        Note = "note",
        /// The positions from which a broker can be healed.
        Checkpoint = "checkpoint",
        /// Emptying what is published and old.
        Retention = "retention",
        /// Deleting old resolved letters and rows of the audit.
        Letters = "letters",
        /// The keys by which consumers recognise events.
        ConsumerKeys = "consumer_keys",
        /// What the relay's user lacks.
        Grants = "grants",
        /// Positions of other relays that nobody holds.
        Positions = "positions",
        /// Applications that cannot insert events.
        Producers = "producers",
    }
}

label! {
    /// What is measured from time to time.
    Measurement {
        /// How much waits, and how many letters there are.
        Depth = "depth",
    }
}

label! {
    /// What can be wrong; `docs/operations.md` has a section for each.
    FindingCode {
        /// The relay has never run.
        NeverStarted = "never_started",
        /// No instance leads the relay.
        NoLeader = "no_leader",
        /// The instance that leads has not reported for long.
        LeaderSilent = "leader_silent",
        /// The instance gets its session and its position.
        Starting = "starting",
        /// A route has failed and waits to be started again.
        RouteFailed = "route_failed",
        /// The instance ends.
        Stopping = "stopping",
        /// There is no session with Postgres.
        PostgresDown = "postgres_down",
        /// Postgres is up and a grant is missing.
        PermissionMissing = "permission_missing",
        /// Another session's lock keeps ours waiting.
        PostgresLocked = "postgres_locked",
        /// Applications cannot insert events.
        ProducersHindered = "producers_hindered",
        /// There is no connection to NATS.
        NatsDown = "nats_down",
        /// The stream does not take messages now.
        StreamUnavailable = "stream_unavailable",
        /// The stream does not fit.
        Misconfigured = "misconfigured",
        /// The server forbids something.
        PermissionDenied = "permission_denied",
        /// Connected, and nothing is answered.
        BrokerStalled = "broker_stalled",
        /// Questions are answered, and no publish is.
        StoreStalled = "store_stalled",
        /// The stream lost what it had acknowledged.
        BrokerRegressed = "broker_regressed",
        /// The stream is scanned for what may have been published before.
        Scanning = "scanning",
        /// Published events are gone from the stream and from the outbox.
        EventsLost = "events_lost",
        /// A condition that the reader rests on does not hold.
        ContractBroken = "contract_broken",
        /// Something that is reported and that this program has no name for.
        Other = "other",
        /// Events wait, and the stream confirms none.
        Stalled = "stalled",
        /// Events wait for long.
        Lagging = "lagging",
        /// Letters are tried again.
        LettersRetrying = "letters_retrying",
        /// Letters wait for a decision.
        DeadLetters = "dead_letters",
        /// Events were committed that no route takes.
        Unrouted = "unrouted",
        /// Backlog and age are not known any more.
        Unmeasured = "unmeasured",
        /// A chore fails again and again.
        ChoreFailing = "chore_failing",
        /// A position that nobody holds keeps the outbox from being emptied.
        PositionAbandoned = "position_abandoned",
    }
}

label! {
    /// What an unresolved letter waits for.
    LetterState {
        /// Its next attempt.
        Retrying = "retrying",
        /// An earlier letter of its key.
        Held = "held",
        /// An operator.
        Dead = "dead",
    }
}

label! {
    /// The tables that events come from.
    Table {
        /// `outbox`.
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

/// The reason is the code of a letter, a constant of this program.
#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
pub(super) struct ReasonLabel {
    pub(super) reason: &'static str,
}
