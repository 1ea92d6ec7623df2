//! Tests of the notifications that the program sends to systemd.

use std::{os::unix::net::UnixDatagram, path::PathBuf, time::Duration};

use postrider::dev::servers::Signal;
use tempfile::TempDir;

use crate::support::{DEADLINE, Fixture, daemon::DaemonBuilder, eventually, stopwatch::Stopwatch};

/// Socket on which the test receives notifications in place of systemd.
struct NotifySocket {
    socket: UnixDatagram,
    heard: Vec<String>,
    directory: TempDir,
}

impl NotifySocket {
    fn bind() -> Self {
        let directory = tempfile::tempdir().unwrap();
        let socket = UnixDatagram::bind(directory.path().join("notify")).unwrap();
        socket.set_nonblocking(true).unwrap();
        Self { socket, heard: Vec::new(), directory }
    }

    fn path(&self) -> PathBuf {
        self.directory.path().join("notify")
    }

    /// The program as systemd would start it, with a watchdog of two seconds.
    fn notifying(&self, daemon: DaemonBuilder) -> DaemonBuilder {
        daemon.env("NOTIFY_SOCKET", self.path().to_str().unwrap()).env("WATCHDOG_USEC", "2000000")
    }

    fn listen(&mut self) {
        let mut buffer = [0; 4096];
        while let Ok(length) = self.socket.recv(&mut buffer) {
            let text = String::from_utf8(buffer[..length].to_vec()).unwrap();
            self.heard.extend(text.lines().map(str::to_owned));
        }
    }

    async fn wait(&mut self, start: &str) -> String {
        eventually(format!("{start} from the program"), DEADLINE, async || {
            self.listen();
            self.heard.iter().find(|line| line.starts_with(start)).cloned()
        })
        .await
    }
}

#[tokio::test]
async fn systemd_hears_ready_status_signs_of_life_and_stopping() {
    let fixture = Fixture::new().await;
    let mut systemd = NotifySocket::bind();
    let mut daemon = systemd.notifying(fixture.daemon()).start();

    systemd.wait("READY=1").await;
    systemd.wait("WATCHDOG=1").await;
    systemd.wait("STATUS=relaying").await;
    systemd.heard.clear();
    daemon.signal(Signal::HangUp);
    systemd.wait("RELOADING=1").await;
    systemd.wait("MONOTONIC_USEC=").await;
    systemd.wait("READY=1").await;
    daemon.terminate();
    systemd.wait("STOPPING=1").await;
    assert_eq!(daemon.wait_exit(DEADLINE).await, Some(0));
}

#[tokio::test]
async fn the_program_is_ready_although_no_server_is_up() {
    let fixture = Fixture::new().await;
    let mut systemd = NotifySocket::bind();
    let unreachable = fixture
        .daemon()
        .set("database.url", "postgresql://nobody@127.0.0.1:1/none")
        .set("nats.url", "nats://127.0.0.1:1")
        .allow_log("WARN");
    let mut daemon = systemd.notifying(unreachable).start();

    systemd.wait("READY=1").await;
    systemd.wait("WATCHDOG=1").await;
    daemon.stop().await;
}

#[tokio::test]
async fn an_idle_program_stops_at_once_when_it_is_asked_to() {
    let fixture = Fixture::new().await;
    let mut systemd = NotifySocket::bind();
    let mut daemon = systemd.notifying(fixture.daemon()).start();
    systemd.wait("STATUS=relaying").await;

    let watch = Stopwatch::start();
    daemon.stop().await;
    let took = watch.stop();
    assert!(took < Duration::from_secs(4), "{took:?} although there was nothing to settle");
}
