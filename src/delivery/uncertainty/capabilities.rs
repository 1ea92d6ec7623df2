//! Capabilities of a log, and the waits of an uncertain event that follow from them.

use std::time::{Duration, Instant};

use crate::delivery::{Delivery, Ticket};

/// Capabilities of a log that decide how an uncertain event is treated.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Capabilities {
    /// How long the log recognises an id that comes again; zero when it never does.
    pub recognises: Duration,
    /// Whether the log can be scanned.
    pub is_scannable: bool,
    /// How long the relay waits for the answer to a message. For as long again after that, the
    /// message may still arrive.
    pub ack_timeout: Duration,
}

/// Largest part of the duplicate window for which an event is sent again without a scan.
const RECOGNISED_SHARE: f64 = 0.8;

impl Delivery {
    /// Sets the capabilities of the log.
    ///
    /// An event is sent again without a scan for a limited time only. So even a late message
    /// arrives while the log recognises its id.
    pub fn set_capabilities(&mut self, capabilities: Capabilities) {
        let Capabilities { recognises, is_scannable, ack_timeout } = capabilities;
        let in_time = recognises.saturating_sub(ack_timeout.saturating_mul(2));
        self.recognised_for = recognises.mul_f64(RECOGNISED_SHARE).min(in_time);
        self.late_max = ack_timeout;
        self.is_scannable = is_scannable;
    }

    /// Next ready event to send. Where the log never recognises an id, an uncertain event waits
    /// until a scan for it is conclusive.
    pub(in crate::delivery) fn next_ready(&mut self, now: Instant) -> Option<Ticket> {
        loop {
            let ticket = self.lanes.take_ready(now)?;
            if !self.recognised_for.is_zero() || !self.is_scannable {
                return Some(ticket);
            }
            match self.lanes.conclusive_at(ticket, self.late_max).filter(|at| *at > now) {
                Some(at) => self.lanes.requeue_at(ticket, at),
                None => return Some(ticket),
            }
        }
    }
}
