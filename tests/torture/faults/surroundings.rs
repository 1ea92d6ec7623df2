//! Faults S and T: the program's outputs and directories are unusable, or its wall clock is wrong.

use std::{fs, fs::File, io, path::Path, time::Duration};

use jiff::Timestamp;

use crate::{
    fault::{Fault, Set, Tally},
    scene::{conclude, daemon, pause, steady, under_load},
    support::{DEADLINE, Fixture, daemon::DaemonBuilder, let_pass},
};

pub(crate) const FAULTS: &[Fault] = &[
    Fault {
        id: "S3",
        what: "outputs that are closed, full or never read; no home and no temporary directory",
        pr: 4,
        nightly: 20,
        set: 1,
        inflict: |set| Box::pin(outputs(set)),
    },
    Fault {
        id: "T1",
        what: "the program's clock an hour off, ten years off, and stepping each second",
        pr: 4,
        nightly: 40,
        set: 1,
        inflict: |set| Box::pin(clock(set)),
    },
];

/// Ends the program's sessions a few times, so that it has something to log.
async fn disturb(fixture: &Fixture, set: &mut Set) {
    let client = fixture.connect().await;
    let statement = "SELECT pg_terminate_backend(pid) FROM pg_stat_activity
        WHERE application_name LIKE 'postrider/%' AND datname = current_database()";
    for _ in 0..4 {
        pause(set, 300..=900).await;
        client.query(statement, &[]).await.unwrap();
    }
}

async fn outputs(mut set: Set) -> Tally {
    let fixture = Fixture::new().await;
    let plain = daemon(&fixture);
    let mut unread = None;
    let daemon = match set.number % 4 {
        0 => plain.output(closed_pipe()),
        1 => {
            let (reader, writer) = io::pipe().unwrap();
            unread = Some(reader);
            // At this level the program logs as much as it can.
            plain.output(writer).env("RUST_LOG", "trace")
        }
        2 => plain.output(File::options().write(true).open("/dev/full").unwrap()),
        _ => plain
            .env("HOME", "/nowhere")
            .env("TMPDIR", "/nowhere")
            .env("XDG_CONFIG_HOME", "/nowhere"),
    };
    let _daemon = daemon.start();
    let options = steady(&set);
    let (ledger, ()) = under_load(&fixture, options, disturb(&fixture, &mut set)).await;
    let tally = conclude(&fixture, &ledger, &set).await;
    drop(unread);
    tally
}

/// A pipe whose reader is closed.
fn closed_pipe() -> io::PipeWriter {
    io::pipe().unwrap().1
}

/// Paths of libfaketime: those of Debian's package, and those of a local build.
const LIBRARIES: [&str; 4] = [
    "/usr/lib/x86_64-linux-gnu/faketime/libfaketime.so.1",
    "/usr/lib/aarch64-linux-gnu/faketime/libfaketime.so.1",
    "/usr/local/lib/faketime/libfaketime.so.1",
    "/usr/lib/faketime/libfaketime.so.1",
];

async fn clock(mut set: Set) -> Tally {
    let Some(library) = LIBRARIES.iter().find(|path| Path::new(path).exists()) else {
        return Tally::skipped("libfaketime is not installed");
    };
    let fixture = Fixture::new().await;
    let directory = tempfile::tempdir().unwrap();
    let offset = directory.path().join("offset");
    let steps = set.number % 4 == 3;
    fs::write(&offset, ["+1h", "-1h", "-3650d", "+2h"][set.number as usize % 4]).unwrap();
    let mut daemon = lie(daemon(&fixture), library, &offset).start();
    let line = daemon.wait_log("relaying", DEADLINE).await;
    let options = steady(&set);
    let strikes = async {
        for _ in 0..5 {
            let_pass(Duration::from_secs(1)).await;
            if steps {
                let minutes = i64::from(set.random.below(20_000)) - 10_000;
                fs::write(&offset, format!("{minutes:+}m")).unwrap();
            }
        }
    };
    let (ledger, ()) = under_load(&fixture, options, strikes).await;
    let mut tally = conclude(&fixture, &ledger, &set).await;
    tally.complain((!is_off(&line)).then(|| format!("the clock was not off: {line}")));
    tally
}

/// Gives the program a wrong wall clock by libfaketime. The monotonic clock, which the program uses
/// for durations, stays correct.
fn lie(builder: DaemonBuilder, library: &str, offset: &Path) -> DaemonBuilder {
    builder
        .env("LD_PRELOAD", library)
        .env("FAKETIME_TIMESTAMP_FILE", &offset.to_string_lossy())
        .env("FAKETIME_NO_CACHE", "1")
        .env("FAKETIME_DONT_FAKE_MONOTONIC", "1")
}

/// Whether the time of a log line is more than 30 minutes away from now.
fn is_off(line: &str) -> bool {
    let said = line.split_whitespace().next().and_then(|text| text.parse::<Timestamp>().ok());
    said.is_some_and(|said| Timestamp::now().duration_since(said).abs().as_mins() > 30)
}
