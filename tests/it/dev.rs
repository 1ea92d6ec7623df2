//! `postrider dev --once` as a user runs it: a clean run, and one that it has to complain about.

use serde_json::Value;

use super::support::{daemon, toml::Toml};

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
