//! Fail points: named places at which a test lets the process die. In a release they do nothing.
//!
//! With the cargo feature `failpoints`, `FP=name:3` in the environment aborts the process when it
//! passes the place of that name for the third time. `docs/torture.md` says who uses it.

/// Marks the place of a fail point. Does nothing in this build, which has no fail points.
#[cfg(not(feature = "failpoints"))]
#[inline(always)]
pub fn pass(_name: &'static str) {}

/// Marks the place of a fail point. Aborts the process when `FP` names this fail point and the
/// process has passed the place as often as `FP` says.
#[cfg(feature = "failpoints")]
pub fn pass(name: &'static str) {
    use std::{
        env,
        io::Write as _,
        process::abort,
        sync::{
            OnceLock,
            atomic::{AtomicU64, Ordering::Relaxed},
        },
    };

    static CHOSEN: OnceLock<Option<(String, u64)>> = OnceLock::new();
    static PASSED: AtomicU64 = AtomicU64::new(0);

    let chosen = CHOSEN.get_or_init(|| {
        let text = env::var("FP").ok()?;
        let (name, nth) = text.split_once(':').unwrap_or((&text, "1"));
        Some((name.to_owned(), nth.parse().ok()?))
    });
    let Some((wanted, nth)) = chosen else { return };
    if wanted == name && PASSED.fetch_add(1, Relaxed) + 1 == *nth {
        // The line goes to the standard error, because the abort would end the log's thread before
        // that could write it.
        drop(writeln!(std::io::stderr(), "fail point {name} passed for the last time"));
        abort();
    }
}

/// Time for which a test pretends that the machine has slept. Always zero in this build, which has
/// no fail points.
#[cfg(not(feature = "failpoints"))]
#[inline(always)]
pub fn slept() -> std::time::Duration {
    std::time::Duration::ZERO
}

/// How long the machine has slept, as a test pretends. The environment variable `SLEPT` is the path
/// of a file that contains the milliseconds.
#[cfg(feature = "failpoints")]
pub fn slept() -> std::time::Duration {
    use std::{env, fs, sync::OnceLock, time::Duration};

    static FILE: OnceLock<Option<String>> = OnceLock::new();
    let file = FILE.get_or_init(|| env::var("SLEPT").ok());
    let read = file.as_ref().and_then(|file| fs::read_to_string(file).ok());
    let millis = read.and_then(|text| text.trim().parse().ok()).unwrap_or_default();
    Duration::from_millis(millis)
}
