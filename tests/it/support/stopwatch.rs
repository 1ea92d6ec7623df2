//! A stopwatch for promised durations, which deducts the time that a busy machine adds.

use std::{
    fs,
    sync::mpsc::{self, Receiver, RecvTimeoutError, Sender},
    thread::{self, JoinHandle},
    time::{Duration, Instant},
};

/// Time for which the control thread works, and then as long rests.
const SLICE: Duration = Duration::from_millis(10);

/// A clock with a control thread that works half of the time and measures how long it waits for a
/// processor. On a quiet machine the thread never waits, and the full time counts. Where it gets a
/// third of a processor, a third of the time counts.
pub(crate) struct Stopwatch {
    began: Instant,
    /// Sender whose drop ends the control thread.
    running: Sender<()>,
    control: JoinHandle<f64>,
}

impl Stopwatch {
    pub(crate) fn start() -> Self {
        let (running, is_over) = mpsc::channel();
        let control = thread::spawn(move || measure_share(&is_over));
        Self { began: Instant::now(), running, control }
    }

    /// Time since the start, reduced to the time that a machine with a free processor would have
    /// needed.
    pub(crate) fn stop(self) -> Duration {
        self.stop_beyond(Duration::ZERO)
    }

    /// Time since the start after the first `wait`, reduced like that of [`stop`](Self::stop). The
    /// first `wait` does not depend on the load.
    pub(crate) fn stop_beyond(self, wait: Duration) -> Duration {
        let took = self.began.elapsed();
        drop(self.running);
        let share = self.control.join().unwrap();
        let beyond = took.saturating_sub(wait).mul_f64(share);
        println!("took {took:?} with {share:.2} of a processor: {beyond:?} beyond {wait:?}");
        beyond
    }
}

/// Share of a processor that this thread gets while it works, from 0 to 1.
fn measure_share(is_over: &Receiver<()>) -> f64 {
    let (worked_before, waited_before) = scheduled();
    loop {
        let began = Instant::now();
        while began.elapsed() < SLICE {
            std::hint::spin_loop();
        }
        if is_over.recv_timeout(SLICE) != Err(RecvTimeoutError::Timeout) {
            break;
        }
    }
    let (worked, waited) = scheduled();
    let (worked, waited) = (worked - worked_before, waited - waited_before);
    if worked + waited == 0.0 { 1.0 } else { worked / (worked + waited) }
}

/// Nanoseconds for which this thread has worked, and has waited for a processor. Both are zero
/// where the system does not count them.
fn scheduled() -> (f64, f64) {
    let text = fs::read_to_string("/proc/thread-self/schedstat").unwrap_or_default();
    let mut nanoseconds = text.split_whitespace().filter_map(|field| field.parse().ok());
    (nanoseconds.next().unwrap_or(0.0), nanoseconds.next().unwrap_or(0.0))
}
