//! Postrider: a transactional outbox daemon for Postgres and NATS JetStream.
//!
//! An application inserts an event in its own transaction. Postrider reads what was committed,
//! publishes each row to a JetStream stream, and records how far it has come, so that a crash
//! anywhere neither loses nor invents an event.
//!
//! # One line
//!
//! Five nouns, one direction:
//!
//! ```text
//! Postgres ──fetch──▶ Event ──encode──▶ Message ──publish──▶ Outcome ──judge──▶ Verdict ──settle──▶ Postgres
//!           outbox            wire               sink                 delivery          outbox
//! ```
//!
//! # The walk of one row
//!
//! | step | where | what |
//! |---|---|---|
//! | wake | [`outbox::Outbox::notified`], `relay/holding/reader.rs` | a notification, or the next poll |
//! | fetch | [`outbox::Outbox::poll`], [`outbox::Outbox::page`] | the rows that became visible since the last snapshot, in `seq` order |
//! | admit | [`delivery::Delivery::admit`] | the event queues behind the earlier ones of its key |
//! | dispatch | [`delivery::Delivery::next`] | heads of lanes, as the window and the breaker permit |
//! | encode | [`wire::Encoder::encode`] | a [`wire::Message`], or a [`wire::Refusal`] |
//! | publish | [`sink::Sink::publish`] | handed to the client; returns at once |
//! | outcome | [`sink::Sink::next`] | the answer: acked, rejected, busy, unavailable, unconfirmed |
//! | judge | [`delivery::Delivery::resolve`] | published, dead, retrying, held, or again |
//! | settle | [`delivery::Delivery::take_settlement`], [`outbox::Outbox::settle`] | position and letters, in one statement |
//!
//! [`relay::Relay`] is the one task that owns all of this; [`app`] builds it; [`cli`] starts it.
//!
//! # Invariants
//!
//! 1. An event leaves the pending set only in the statement that records its verdict.
//! 2. Published means: acknowledged by the configured stream.
//! 3. At most one publish is in flight per aggregate key; events without a key have no such limit.
//! 4. The message id of an event never changes: not across retries, not across restarts.
//! 5. An outage consumes no attempts and dead-letters nothing.
//! 6. Every queue, batch, buffer and retry has a bound; memory is bounded by bytes, not by rows.
//! 7. What cannot be encoded is dead-lettered with a reason and blocks no other aggregate.
//! 8. Nothing is published without a lease that is trusted; every write of progress carries the
//!    term of that holding.

pub mod admin;
pub mod app;
pub mod broker;
pub mod cli;
pub mod clock;
pub mod config;
pub mod delivery;
pub mod dev;
pub mod event;
pub mod failpoint;
pub mod findings;
pub mod logging;
pub mod metrics;
pub mod nats;
pub mod operate;
pub mod outbox;
pub mod pg;
pub mod relay;
pub mod shutdown;
pub mod sink;
pub mod stdout;
pub mod systemd;
pub mod tasks;
pub mod unrouted;
pub mod wire;

/// The memory allocator of the process. The library sets it, so that the benchmarks, which measure
/// the relay against a bare publisher, run that publisher with the same allocator.
/// docs/performance.md has the figures.
#[cfg(feature = "jemalloc")]
#[global_allocator]
static ALLOCATOR: tikv_jemallocator::Jemalloc = tikv_jemallocator::Jemalloc;
