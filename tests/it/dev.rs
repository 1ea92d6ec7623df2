//! `postrider dev` as a user runs it: a clean run, one that it has to complain about, and the demo.

use std::process::Stdio;

use postrider::dev::servers::{Signal, send_signal};
use serde_json::Value;
use tokio::{
    io::{AsyncBufReadExt as _, BufReader, Lines},
    process::{ChildStdout, Command},
    time::timeout,
};

use super::support::{DEADLINE, app, daemon, postgres, toml::Toml};

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
    // The workload expects `events.{event_type}`.
    let setting = "route.subject=events.elsewhere.{event_type}";
    let args = ["dev", "--once", "--events", "200", "--seed", "3", "--set", setting];
    let run = daemon::run(&Toml::default(), &args).await;
    assert_eq!(run.code, Some(1), "{run:?}");
    assert!(run.stderr.contains("200 with another subject: "), "{run:?}");
    assert!(run.stderr.contains("repeat the workload with --seed 3"), "{run:?}");
}

async fn line_with(lines: &mut Lines<BufReader<ChildStdout>>, text: &str) -> String {
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

#[tokio::test]
async fn the_demo_shows_events_of_its_own_and_of_its_user_until_it_is_stopped() {
    let mut child = Command::new(env!("CARGO_BIN_EXE_postrider"))
        .arg("dev")
        .stdout(Stdio::piped())
        .kill_on_drop(true)
        .spawn()
        .unwrap();
    let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
    let psql = line_with(&mut lines, "psql postgresql://").await;
    let url = psql.split_whitespace().last().unwrap();
    line_with(&mut lines, "events.order.placed").await;
    line_with(&mut lines, "rolled back").await;

    let client = postgres::connect(url).await;
    app::emit(&client, "order.mine", Some(("order", "mine")), r#"{"n": 1}"#).await;
    let line = line_with(&mut lines, "events.order.mine").await;
    assert!(line.contains("order/mine") && line.contains(r#"{"n": 1}"#), "{line}");

    send_signal(child.id().unwrap(), Signal::Interrupt).unwrap();
    let status = timeout(DEADLINE, child.wait()).await.unwrap().unwrap();
    assert_eq!(status.code(), Some(0));
    assert!(client.query_one("SELECT 1", &[]).await.is_err(), "the servers are still there");
}
