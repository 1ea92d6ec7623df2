//! Test of the log's reader: events are published even when nobody reads the log, or it cannot be
//! written.

use std::{fs::File, io, os::fd::OwnedFd};

use super::support::{DEADLINE, Fixture, app};

/// Former defect: the program panicked when the reader of its log was gone, and it blocked when the
/// reader had stopped reading.
#[tokio::test]
async fn a_log_that_cannot_be_written_stops_nothing() {
    let (unread, never_read) = io::pipe().unwrap();
    let closed = io::pipe().unwrap().1;
    let full = File::options().write(true).open("/dev/full").unwrap();
    for output in [OwnedFd::from(closed), OwnedFd::from(never_read), OwnedFd::from(full)] {
        let fixture = Fixture::new().await;
        let client = fixture.connect().await;
        let _daemon = fixture.daemon().output(output).env("RUST_LOG", "trace").start();
        app::insert_backlog(&client, 1_000, 10).await;
        assert_eq!(fixture.wait_stored(1_000, DEADLINE).await.len(), 1_000);
        assert!(fixture.wait_drained(DEADLINE).await);
    }
    drop(unread);
}
