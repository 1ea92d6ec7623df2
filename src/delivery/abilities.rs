//! Abilities of a log, and what they decide about an event that it may contain without our knowing.

use std::time::{Duration, Instant};

use super::{Delivery, Ticket};

/// Abilities of a log that decide what is done about an event that it may contain without our
/// knowing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Abilities {
    /// How long the log recognises an id that comes again; zero when it never does.
    pub recognises: Duration,
    /// Whether a scan tells what the log contains.
    pub is_scannable: bool,
    /// How long an answer is waited for. A message may be in flight for as long again after nobody
    /// waits for it any more.
    pub ack_timeout: Duration,
}

/// The part of the stream's duplicate window for which an event may be sent again without a scan,
/// at most.
const RECOGNISED_SHARE: f64 = 0.8;

impl Delivery {
    /// Takes over the abilities of the log.
    ///
    /// An event is sent again without a scan for so long that its message arrives while the log
    /// recognises it, however late it is.
    pub fn set_abilities(&mut self, abilities: Abilities) {
        let Abilities { recognises, is_scannable, ack_timeout } = abilities;
        let in_time = recognises.saturating_sub(ack_timeout.saturating_mul(2));
        self.recognised_for = recognises.mul_f64(RECOGNISED_SHARE).min(in_time);
        self.late_max = ack_timeout;
        self.is_scannable = is_scannable;
    }

    /// The next event that is ready. Where the log never recognises an id, an event that it may
    /// contain waits until a scan is certain to tell.
    pub(super) fn next_ready(&mut self, now: Instant) -> Option<Ticket> {
        loop {
            let ticket = self.lanes.take_ready(now)?;
            if !self.recognised_for.is_zero() || !self.is_scannable {
                return Some(ticket);
            }
            match self.lanes.conclusive_at(ticket, self.late_max).filter(|at| *at > now) {
                Some(at) => self.lanes.again_at(ticket, at),
                None => return Some(ticket),
            }
        }
    }
}
