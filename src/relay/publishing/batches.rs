//! Batches of messages: how they are handed over, and what follows from their answers.

use std::time::{Duration, Instant};

use tracing::{debug, info};

use crate::{
    delivery::{BatchKind, BatchOutcome, Delivery, Outcome, Ticket, Transition, TrialResult},
    failpoint,
    metrics::{BatchResult, Failure},
    relay::{Relay, holding::Holding},
    wire::Message,
};

impl Relay {
    /// Sends these events as a batch, up to the first that cannot be encoded. Returns whether a
    /// batch was sent; otherwise the first event goes by itself.
    pub(in crate::relay) fn send_batch(
        &mut self,
        holding: &mut Holding,
        (kind, batch): (BatchKind, &[Ticket]),
        now: Instant,
    ) -> bool {
        let mut messages: Vec<Message> = Vec::with_capacity(batch.len());
        for ticket in batch {
            let Some((event, _)) = holding.delivery.event(*ticket) else { break };
            // The batch ends before an event that cannot be encoded. That event is refused once it
            // is the first of its lane.
            let Ok(message) = self.log.encoder.encode(event) else { break };
            messages.push(message);
        }
        let (goes, waits) = batch.split_at(messages.len());
        if goes.len() < 2 {
            holding.delivery.give_back_batch(batch.get(1..).unwrap_or_default());
            return false;
        }
        self.report
            .metrics
            .publishing
            .left_out(messages.iter().map(|message| message.left_out).sum());
        failpoint::pass("publish");
        match self.log.sink.publish_batch(kind, goes.into(), messages, now) {
            Ok(()) => holding.delivery.batch_sent(kind, goes, now),
            Err(why) => {
                debug!(
                    ?why,
                    events = goes.len(),
                    "could not send a whole batch, perhaps a part of it was sent; its events are sent again"
                );
                holding.delivery.batch_cut_short(kind, goes, now);
            }
        }
        failpoint::pass("handed-over");
        holding.delivery.give_back_batch(waits);
        true
    }

    /// Judges the outcome of a batch.
    pub(in crate::relay) fn batch_answered(
        &mut self,
        holding: &mut Holding,
        batch: &[Ticket],
        outcome: &BatchOutcome,
        (took, now): (Duration, Instant),
    ) {
        let result = match (holding.delivery.all_stored(batch, outcome), outcome) {
            (Some(stream_seq), _) => {
                let acked = Outcome::Acked { stream_seq, duplicate: false };
                for ticket in batch {
                    let event = holding.delivery.event(*ticket);
                    self.report.outcome(event, &acked, took);
                }
                BatchResult::Committed
            }
            (None, BatchOutcome::Refused { text } | BatchOutcome::Broken { text }) => {
                info!(answer = %text, events = batch.len(), "the broker refused a batch; its events are sent one by one");
                BatchResult::Refused
            }
            (None, outcome) => {
                if let BatchOutcome::Seen { last_seq } = outcome {
                    info!(
                        last_seq,
                        events = batch.len(),
                        "the broker's answer does not prove that the whole batch was stored; its events are sent again one by one. The stream recognises those that it has"
                    );
                }
                for _ in batch {
                    self.report.metrics.publishing.failed(Failure::Unconfirmed);
                }
                BatchResult::Unconfirmed
            }
        };
        self.report.metrics.publishing.batch(result);
        let transition = holding.delivery.resolve_batch(batch, outcome, now);
        failpoint::pass("answered");
        if transition == Transition::WentBack {
            self.log.verify_soon(now);
        }
        self.report.gate(&mut holding.delivery, transition, now);
    }
}

/// Measures whether events go faster in atomic batches, and logs a change.
pub(super) fn measure_trial(delivery: &mut Delivery, now: Instant) {
    match delivery.measure(now) {
        Some(TrialResult::BatchesFaster { batched, otherwise }) => info!(
            batched_per_second = batched.round(),
            otherwise_per_second = otherwise.round(),
            "events are sent in atomic batches from now on, which was measured to be clearly faster"
        ),
        Some(TrialResult::NotFaster { batched, otherwise }) => debug!(
            batched_per_second = batched.round(),
            otherwise_per_second = otherwise.round(),
            "atomic batches were tried and are not clearly faster"
        ),
        Some(TrialResult::Restarted) => {
            info!(
                "events are sent without atomic batches for a while, to measure which way is faster"
            );
        }
        None => {}
    }
}
