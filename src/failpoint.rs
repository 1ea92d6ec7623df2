//! Fail points: named places at which a test lets the process die, and nothing at all in a release.
//!
//! With the cargo feature `failpoints`, `FP=name:3` in the environment aborts the process when it
//! passes the place of that name for the third time. `docs/torture.md` says who uses it.

/// Passes a place.
#[cfg(not(feature = "failpoints"))]
#[inline(always)]
pub fn pass(_name: &'static str) {}

/// Passes a place; for the last time, when the environment says so.
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
        // The log's own thread would not come to it.
        drop(writeln!(std::io::stderr(), "fail point {name} passed for the last time"));
        abort();
    }
}

/// How long a test says that the machine has slept.
#[cfg(not(feature = "failpoints"))]
#[inline(always)]
pub fn slept() -> std::time::Duration {
    std::time::Duration::ZERO
}

/// How long a test says that the machine has slept: the milliseconds in the file that `SLEPT` names.
#[cfg(feature = "failpoints")]
pub fn slept() -> std::time::Duration {
    use std::{env, fs, sync::OnceLock, time::Duration};

    static FILE: OnceLock<Option<String>> = OnceLock::new();
    let file = FILE.get_or_init(|| env::var("SLEPT").ok());
    let read = file.as_ref().and_then(|file| fs::read_to_string(file).ok());
    let millis = read.and_then(|text| text.trim().parse().ok()).unwrap_or_default();
    Duration::from_millis(millis)
}
