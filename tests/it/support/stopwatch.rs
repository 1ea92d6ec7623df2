//! A stopwatch for promised times, which leaves out what a busy machine adds to them.

use std::{
    fs,
    sync::mpsc::{self, Receiver, RecvTimeoutError, Sender},
    thread::{self, JoinHandle},
    time::{Duration, Instant},
};

/// Time for which the control works, and then rests.
const SLICE: Duration = Duration::from_millis(10);

/// A wall clock with a control beside it: a thread that works half of the time and measures how long
/// it waits for a processor. On a quiet machine it never waits, and a promise is held to its letter.
/// Where it gets a third of a processor, a promise may take three times as long.
pub(crate) struct Stopwatch {
    began: Instant,
    /// Dropped at the end: then the control ends too.
    running: Sender<()>,
    control: JoinHandle<f64>,
}

impl Stopwatch {
    pub(crate) fn start() -> Self {
        let (running, is_over) = mpsc::channel();
        let control = thread::spawn(move || measure_share(&is_over));
        Self { began: Instant::now(), running, control }
    }

    /// The time since the start, on a machine that has a processor free.
    pub(crate) fn stop(self) -> Duration {
        self.stop_beyond(Duration::ZERO)
    }

    /// The same of what came after the first `wait`, which passes at any load alike.
    pub(crate) fn stop_beyond(self, wait: Duration) -> Duration {
        let took = self.began.elapsed();
        drop(self.running);
        let share = self.control.join().unwrap();
        let beyond = took.saturating_sub(wait).mul_f64(share);
        println!("took {took:?} with {share:.2} of a processor: {beyond:?} beyond {wait:?}");
        beyond
    }
}

/// The share of a processor that this thread gets while it works.
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

/// For how long this thread has worked, and waited for a processor; zero where nobody counts.
fn scheduled() -> (f64, f64) {
    let text = fs::read_to_string("/proc/thread-self/schedstat").unwrap_or_default();
    let mut nanoseconds = text.split_whitespace().filter_map(|field| field.parse().ok());
    (nanoseconds.next().unwrap_or(0.0), nanoseconds.next().unwrap_or(0.0))
}
