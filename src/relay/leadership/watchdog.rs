//! Watchdog of the loop: it ends a process that stood still for as long as its lease is trusted,
//! before the client library can write what it holds.
//!
//! The client library writes from tasks of its own. When a frozen process goes on, they may run
//! before the loop does. A timer of the kernel goes on while the process is frozen, and its signal
//! is handled first. `docs/leadership.md` says what this is for.

/// Exit code of a process that the watchdog ends: `EX_TEMPFAIL`, a supervisor starts it again.
pub const EXIT_CODE: i32 = 75;

/// Part of the time after which the timer is set anew, so that it is not set in each turn.
const SET_AFTER: u32 = 8;

pub(in crate::relay) use system::Watchdog;

#[cfg(target_os = "linux")]
mod system {
    use std::{
        io,
        sync::{
            Arc,
            atomic::{AtomicBool, Ordering::SeqCst},
        },
        time::{Duration, Instant},
    };

    use nix::{
        sys::{
            signal::{SigEvent, SigevNotify, Signal},
            time::TimeSpec,
            timer::{Expiration, Timer, TimerSetTimeFlags},
        },
        time::ClockId,
    };
    use signal_hook::{consts::SIGALRM, flag};
    use tracing::warn;

    use super::{EXIT_CODE, SET_AFTER};

    /// Expiration that stops a timer.
    const NEVER: Expiration = Expiration::OneShot(TimeSpec::new(0, 0));

    /// Timer that ends the process unless the loop turns, while messages may wait to be written.
    #[derive(Debug)]
    pub(in crate::relay) struct Watchdog {
        /// The timer; `None` where the system gave none.
        timer: Option<Timer>,
        length: Duration,
        /// When the timer was set last.
        set: Option<Instant>,
        /// Whether messages may wait in the client library.
        is_guarding: Arc<AtomicBool>,
    }

    impl Watchdog {
        /// A watchdog that guards nothing yet. It ends the process when `length` goes by without a
        /// turn.
        pub(in crate::relay) fn new(length: Duration) -> Self {
            let is_guarding = Arc::new(AtomicBool::new(false));
            let timer = timer(&is_guarding)
                .inspect_err(|error| {
                    warn!(
                        %error,
                        "no watchdog: the system gave no timer; a leader that is frozen for longer \
                         than its lease may store again what its client held"
                    );
                })
                .ok();
            Self { timer, length, set: None, is_guarding }
        }

        /// A turn of the loop begins with so many events in memory. Their messages may wait in the
        /// client library, or will before the next turn.
        pub(in crate::relay) fn turn(&mut self, now: Instant, events: usize) {
            if events > 0 {
                self.guard(now);
            } else {
                self.rest();
            }
        }

        fn guard(&mut self, now: Instant) {
            let Some(timer) = &mut self.timer else { return };
            if self.set.is_none_or(|set| now >= set + self.length / SET_AFTER) {
                let expiration = Expiration::OneShot(TimeSpec::from(self.length));
                match timer.set(expiration, TimerSetTimeFlags::empty()) {
                    Ok(()) => self.set = Some(now),
                    Err(error) => {
                        warn!(%error, "no watchdog: the system does not set its timer");
                        self.timer = None;
                        self.is_guarding.store(false, SeqCst);
                        return;
                    }
                }
            }
            self.is_guarding.store(true, SeqCst);
        }

        /// No event is in memory, or the loop turns no more. What is on its way then was written,
        /// or ends with a connection that leaves two pings unanswered.
        pub(in crate::relay) fn rest(&mut self) {
            self.is_guarding.store(false, SeqCst);
            // Every flow of the process hears the signal: a timer that went on would end the
            // process while another flow guards.
            if let (Some(timer), Some(_)) = (&mut self.timer, self.set.take())
                && let Err(error) = timer.set(NEVER, TimerSetTimeFlags::empty())
            {
                warn!(%error, "the system does not stop the watchdog's timer");
            }
        }
    }

    /// A timer that counts while the machine sleeps, and whose signal ends the process while
    /// `is_guarding` is set.
    ///
    /// The signal has a handler because the first process of a container is spared by signals that
    /// have none.
    fn timer(is_guarding: &Arc<AtomicBool>) -> io::Result<Timer> {
        flag::register_conditional_shutdown(SIGALRM, EXIT_CODE, Arc::clone(is_guarding))?;
        let notify = SigevNotify::SigevSignal { signal: Signal::SIGALRM, si_value: 0 };
        Ok(Timer::new(ClockId::CLOCK_BOOTTIME, SigEvent::new(notify))?)
    }
}

#[cfg(not(target_os = "linux"))]
mod system {
    use std::time::{Duration, Instant};

    /// No watchdog: other systems have no such timer.
    #[derive(Debug)]
    pub(in crate::relay) struct Watchdog;

    impl Watchdog {
        pub(in crate::relay) fn new(_length: Duration) -> Self {
            Self
        }

        pub(in crate::relay) fn turn(&mut self, _now: Instant, _events: usize) {}

        pub(in crate::relay) fn rest(&mut self) {}
    }
}
