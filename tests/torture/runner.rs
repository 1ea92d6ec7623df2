//! Runs several faults side by side, each set of strikes in a thread and a tokio runtime of its
//! own.

use std::{
    any::Any,
    collections::VecDeque,
    sync::{Mutex, PoisonError},
    thread,
    time::{Duration, Instant},
};

use super::{
    fault::{Fault, Set, Tally},
    options::Options,
};

/// Deadline of a set of strikes. A set that is still running then has failed.
const SET_DEADLINE: Duration = Duration::from_mins(10);

/// Result of a fault: the tally of all its sets, and the time they took.
pub(crate) struct Outcome {
    pub(crate) fault: Fault,
    pub(crate) tally: Tally,
    pub(crate) took: Duration,
}

impl Outcome {
    /// Whether the fault showed nothing wrong.
    pub(crate) fn is_fine(&self) -> bool {
        self.tally.is_clean()
    }
}

/// Runs all faults, `jobs` at a time. Returns the outcomes in the order of the faults.
pub(crate) fn run(faults: Vec<Fault>, options: &Options) -> Vec<Outcome> {
    let count = faults.len();
    let queue: Mutex<VecDeque<(usize, Fault)>> =
        Mutex::new(faults.into_iter().enumerate().collect());
    let done: Mutex<Vec<(usize, Outcome)>> = Mutex::new(Vec::new());
    let take = || queue.lock().unwrap_or_else(PoisonError::into_inner).pop_front();
    thread::scope(|scope| {
        for _ in 0..options.jobs.min(count) {
            scope.spawn(|| {
                while let Some((place, fault)) = take() {
                    let outcome = run_one(fault, options);
                    print(&outcome);
                    done.lock().unwrap_or_else(PoisonError::into_inner).push((place, outcome));
                }
            });
        }
    });
    let mut done = done.into_inner().unwrap_or_else(PoisonError::into_inner);
    done.sort_by_key(|(place, _)| *place);
    done.into_iter().map(|(_, outcome)| outcome).collect()
}

fn run_one(fault: Fault, options: &Options) -> Outcome {
    let began = Instant::now();
    let mut tally = Tally::default();
    let strikes = options.strikes(&fault);
    let mut left = strikes;
    for number in 0.. {
        // A fault ends at its first failing set, because more failures would only take time.
        if left == 0 || !tally.is_clean() || tally.skipped.is_some() {
            break;
        }
        let here = left.min(options.set.unwrap_or(fault.set).max(1));
        left -= here;
        tally.absorb(run_set(fault, Set::new(fault.id, number, here, options.seed)));
    }
    Outcome { fault, tally, took: began.elapsed() }
}

/// Runs one set in a thread of its own, so that a panic fails this fault and no other.
fn run_set(fault: Fault, set: Set) -> Tally {
    let strikes = set.strikes;
    let body = move || {
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(2)
            .enable_all()
            .build()
            .expect("threads for a fault");
        runtime.block_on(async {
            tokio::time::timeout(SET_DEADLINE, (fault.inflict)(set)).await.expect("an end in time")
        })
    };
    let thread = thread::Builder::new().name(fault.id.to_owned()).spawn(body).expect("a thread");
    thread.join().unwrap_or_else(|panic| Tally::failed(strikes, text(panic.as_ref())))
}

fn text(panic: &(dyn Any + Send)) -> String {
    let short = panic.downcast_ref::<&str>().copied();
    let long = panic.downcast_ref::<String>().map(String::as_str);
    long.or(short).unwrap_or("panicked").to_owned()
}

/// Prints one line about a fault as soon as it has ended.
fn print(outcome: &Outcome) {
    let Outcome { fault, tally, took } = outcome;
    let verdict = match (&tally.skipped, tally.is_clean()) {
        (Some(_), true) => "skipped",
        (None, true) => "ok",
        (_, false) => "FAILED",
    };
    let (seconds, recovery) = (took.as_secs_f64(), tally.recovery.as_secs_f64());
    println!(
        "torture: {:<4} {verdict} in {seconds:.1} s, at rest after {recovery:.1} s: {}",
        fault.id, fault.what
    );
    for complaint in &tally.complaints {
        println!("torture: {:<4} {complaint}", fault.id);
    }
}
