//! The log's reader: whatever becomes of it, events go on.

use std::{fs::File, io, os::fd::OwnedFd};

use super::support::{DEADLINE, Fixture, app};

/// The program wrote with a macro that panics when the other end is gone, and waited for one that
/// had stopped.
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
