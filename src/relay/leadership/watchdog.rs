//! Watchdog of the loop: it ends a process that stood still for as long as its lease is trusted,
//! before the client library can write messages from its queue.
//!
//! The client library writes from tasks of its own, which may run before the loop does when a
//! frozen process goes on. A timer of the kernel goes on while the process is frozen, and its
//! signal is handled first. `docs/leadership.md` has the reason.

/// Exit code of a process that the watchdog ends: `EX_TEMPFAIL`. A supervisor starts the process
/// again.
pub const EXIT_CODE: i32 = 75;

/// Divisor of the timer's length: the timer is set again only after 1/8 of it, so that not every
/// turn of the loop sets it.
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

    /// Timer that ends the process when the loop does not turn while messages may wait to be
    /// written.
    #[derive(Debug)]
    pub(in crate::relay) struct Watchdog {
        /// Timer; `None` when the system has refused one.
        timer: Option<Timer>,
        length: Duration,
        /// When the timer was last set.
        set: Option<Instant>,
        /// Whether messages may wait in the client library's queue.
        is_guarding: Arc<AtomicBool>,
    }

    impl Watchdog {
        /// A watchdog that is at rest. While it guards, it ends the process `length` after the last
        /// turn.
        pub(in crate::relay) fn new(length: Duration) -> Self {
            let is_guarding = Arc::new(AtomicBool::new(false));
            let timer = timer(&is_guarding)
                .inspect_err(|error| {
                    warn!(
                        %error,
                        "the operating system gave the watchdog no timer; without it a leader that \
                         is frozen for longer than its lease may publish a second time when it \
                         wakes up"
                    );
                })
                .ok();
            Self { timer, length, set: None, is_guarding }
        }

        /// Guards while `events` are in memory, because their messages may wait in the client
        /// library now or before the next turn. Rests otherwise.
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
                        warn!(%error, "the operating system refused the watchdog's timer; without it a leader that is frozen for longer than its lease may publish a second time when it wakes up");
                        self.timer = None;
                        self.is_guarding.store(false, SeqCst);
                        return;
                    }
                }
            }
            self.is_guarding.store(true, SeqCst);
        }

        /// Stops guarding, because no event is in memory or the loop has ended. The client library
        /// has then written its messages, or drops them with a connection that leaves two pings
        /// unanswered.
        pub(in crate::relay) fn rest(&mut self) {
            self.is_guarding.store(false, SeqCst);
            // Stops the timer, whose signal is sent to the whole process: if it ran on, its signal
            // would end the process as soon as the watchdog of another flow guards.
            if let (Some(timer), Some(_)) = (&mut self.timer, self.set.take())
                && let Err(error) = timer.set(NEVER, TimerSetTimeFlags::empty())
            {
                warn!(%error, "could not stop the timer of the watchdog; it may end this process although its lease is valid");
            }
        }
    }

    /// Creates a timer that counts while the machine sleeps. Its signal ends the process while
    /// `is_guarding` is set.
    ///
    /// The signal has a handler, because signals without one do not end the first process of a
    /// container.
    fn timer(is_guarding: &Arc<AtomicBool>) -> io::Result<Timer> {
        flag::register_conditional_shutdown(SIGALRM, EXIT_CODE, Arc::clone(is_guarding))?;
        let notify = SigevNotify::SigevSignal { signal: Signal::SIGALRM, si_value: 0 };
        Ok(Timer::new(ClockId::CLOCK_BOOTTIME, SigEvent::new(notify))?)
    }
}

#[cfg(not(target_os = "linux"))]
mod system {
    use std::time::{Duration, Instant};

    /// Watchdog that does nothing: other systems have no such timer.
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
