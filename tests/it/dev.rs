//! Tests of `postrider dev` as a user runs it: a correct run, a run with a fault that it has to
//! report, and the demo.

use std::{fs, process::Stdio};

use postrider::dev::servers::{Signal, send_signal};
use serde_json::Value;
use tokio::{
    io::{AsyncBufReadExt as _, AsyncRead, BufReader, Lines},
    process::{Child, ChildStderr, ChildStdout, Command},
    sync::{Mutex, MutexGuard},
    time::timeout,
};

use super::support::{DEADLINE, app, daemon, eventually, postgres, toml::Toml};

#[tokio::test]
async fn one_run_ends_with_one_json_line_of_good_figures() {
    let run = daemon::run(&Toml::default(), &["dev", "--once", "--events", "2000", "--json"]).await;
    assert_eq!(run.code, Some(0), "{run:?}");
    assert_eq!(run.stdout.lines().count(), 1, "{run:?}");
    let figures: Value = serde_json::from_str(&run.stdout).unwrap();
    assert_eq!(figures["committed"], 2000, "{figures}");
    assert_eq!(figures["stored"], 2000, "{figures}");
    for fault in ["lost", "phantom", "duplicates", "inversions"] {
        assert_eq!(figures[fault], 0, "{figures}");
    }
}

#[tokio::test]
async fn a_relay_that_publishes_elsewhere_is_found_out() {
    // The workload expects the subject `events.{event_type}`, so every message is on a wrong one.
    let setting = "route.subject=events.elsewhere.{event_type}";
    let args = ["dev", "--once", "--events", "200", "--seed", "3", "--set", setting];
    let run = daemon::run(&Toml::default(), &args).await;
    assert_eq!(run.code, Some(1), "{run:?}");
    assert!(run.stderr.contains("200 with another subject: "), "{run:?}");
    assert!(run.stderr.contains("repeat the workload with --seed 3"), "{run:?}");
}

async fn line_with<R: AsyncRead + Unpin>(lines: &mut Lines<BufReader<R>>, text: &str) -> String {
    let wanted = async {
        loop {
            let line = lines.next_line().await.unwrap().expect("more lines");
            if line.contains(text) {
                return line;
            }
        }
    };
    timeout(DEADLINE, wanted).await.unwrap_or_else(|_| panic!("no line with {text:?}"))
}

/// Held by the test that runs the demo, because the demo uses fixed ports and only one can run at a
/// time.
static KEPT_PORTS: Mutex<()> = Mutex::const_new(());

/// A running `postrider dev`, its output, and the environment variables that it has printed.
struct Dev {
    child: Child,
    lines: Lines<BufReader<ChildStdout>>,
    errors: Lines<BufReader<ChildStderr>>,
    env: Vec<(String, String)>,
    _ports: MutexGuard<'static, ()>,
}

impl Dev {
    async fn start() -> Self {
        let ports = KEPT_PORTS.lock().await;
        let mut child = Command::new(env!("CARGO_BIN_EXE_postrider"))
            .arg("dev")
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .kill_on_drop(true)
            .spawn()
            .unwrap();
        let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
        let mut env = Vec::new();
        for name in ["DATABASE_URL", "NATS_URL", "POSTRIDER_CONFIG"] {
            let line = line_with(&mut lines, &format!("export {name}=")).await;
            env.push((name.to_owned(), line.split_once('=').unwrap().1.to_owned()));
        }
        let errors = BufReader::new(child.stderr.take().unwrap()).lines();
        Self { child, lines, errors, env, _ports: ports }
    }

    fn url(&self) -> &str {
        &self.env[0].1
    }

    /// Runs shell commands as a person would, with the environment variables that the demo has
    /// printed.
    async fn shell(&self, lines: &str) -> String {
        let psql = postrider::dev::servers::postgres_bin().unwrap();
        let program = std::path::Path::new(env!("CARGO_BIN_EXE_postrider")).parent().unwrap();
        let path = std::env::var("PATH").unwrap();
        let path = format!("{}:{}:{path}", psql.display(), program.display());
        let mut shell = Command::new("/bin/sh");
        shell.args(["-euc", lines]).current_dir(env!("CARGO_MANIFEST_DIR")).env("PATH", path);
        let output = shell.envs(self.env.iter().cloned()).kill_on_drop(true).output();
        let output = timeout(DEADLINE, output).await.expect("an end in time").unwrap();
        let text = String::from_utf8_lossy(&[output.stdout, output.stderr].concat()).into_owned();
        assert!(output.status.success(), "{lines}: {text}");
        text
    }

    /// Sends Ctrl-C. Returns the last line that the demo prints.
    async fn interrupt(mut self) -> String {
        send_signal(self.child.id().unwrap(), Signal::Interrupt).unwrap();
        let last = line_with(&mut self.lines, "events were committed").await;
        let status = timeout(DEADLINE, self.child.wait()).await.unwrap().unwrap();
        assert_eq!(status.code(), Some(0));
        last
    }
}

#[tokio::test]
async fn the_demo_shows_events_of_its_own_and_of_its_user_until_it_is_stopped() {
    let mut dev = Dev::start().await;
    line_with(&mut dev.lines, "events.order.placed").await;
    line_with(&mut dev.lines, "rolled back").await;

    let client = postgres::connect(dev.url()).await;
    app::emit(&client, "order.mine", Some(("order", "mine")), r#"{"n": 1}"#).await;
    let line = line_with(&mut dev.lines, "events.order.mine").await;
    assert!(line.contains("order/mine") && line.contains(r#"{"n": 1}"#), "{line}");

    let bad = "INSERT INTO postrider.outbox (event_type) VALUES ('order.*')";
    client.batch_execute(bad).await.unwrap();
    let line = line_with(&mut dev.lines, "is dead: order.*").await;
    assert!(line.contains("postrider dlq show 1"), "{line}");
    let listed = dev.shell("postrider dlq list").await;
    assert!(listed.contains("order.*"), "{listed}");

    let total = dev.interrupt().await;
    assert!(total.contains("letters: 1 dead, 0 retrying, 0 held"), "{total}");
    let counts: Vec<u64> = total.split(' ').filter_map(|word| word.parse().ok()).collect();
    // Every event but the dead one is stored, if the relay had the time to publish all of them.
    assert!(counts[0] > counts[1] && counts[1] > 0, "{total}");
    assert!(client.query_one("SELECT 1", &[]).await.is_err(), "the servers are still there");
}

/// Process id of the child process of `parent` whose command line contains `program`.
fn child_of(parent: u32, program: &str) -> u32 {
    let is_it = |pid: &u32| {
        let read = |file: &str| fs::read_to_string(format!("/proc/{pid}/{file}"));
        let parent_is_it = read("status")
            .is_ok_and(|status| status.lines().any(|line| line == format!("PPid:\t{parent}")));
        parent_is_it && read("cmdline").is_ok_and(|line| line.contains(program))
    };
    let entries = fs::read_dir("/proc").unwrap();
    let pids = entries.filter_map(|entry| entry.unwrap().file_name().to_str()?.parse().ok());
    pids.into_iter().find(is_it).unwrap_or_else(|| panic!("no {program}"))
}

/// Former defect: killing the broker, which users try first, ended the demo and removed the logs
/// that could explain why.
#[tokio::test]
async fn the_demo_outlives_a_broker_that_is_killed() {
    let mut dev = Dev::start().await;
    line_with(&mut dev.lines, "events.order.placed").await;
    send_signal(child_of(dev.child.id().unwrap(), "nats-server"), Signal::Kill).unwrap();
    let report = eventually("the broker to be missed", DEADLINE, async || {
        let text = dev.shell("postrider status --check || true").await;
        text.contains("nats_down").then_some(text)
    })
    .await;
    assert!(report.contains("CRITICAL"), "{report}");
    // The consumer reports this once it has missed some heartbeats of the killed broker.
    line_with(&mut dev.errors, "consumer: could not read the demo's stream").await;
    assert!(dev.shell("postrider status").await.contains("nats_down"));
    assert!(dev.child.try_wait().unwrap().is_none(), "the demo has ended");
}

#[tokio::test]
async fn the_examples_run_word_for_word_against_the_demo() {
    let page = include_str!("../../examples/README.md");
    let blocks: Vec<&str> =
        page.split("```sh\n").skip(1).map(|block| block.split("```").next().unwrap()).collect();
    assert_eq!(blocks[0], "make dev\n");
    let mut dev = Dev::start().await;
    line_with(&mut dev.lines, "events.order.placed").await;
    let text = dev.shell(blocks[1]).await;
    assert!(text.contains("placed 100 orders") && text.contains("ann"), "{text}");
    let client = postgres::connect(dev.url()).await;
    let applied = "SELECT sum(orders)::int8 FROM shop.spending";
    assert_eq!(client.query_one(applied, &[]).await.unwrap().get::<_, i64>(0), 100);
}
