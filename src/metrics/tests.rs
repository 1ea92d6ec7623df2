//! The metrics as Prometheus reads them.

use std::{collections::BTreeMap, time::Duration};

use super::*;

#[derive(Debug, Default, PartialEq, Eq)]
struct Described {
    kind: String,
    labels: Vec<String>,
    help: String,
}

fn page_of(routes: &[&str]) -> String {
    let program = ProgramMetrics::new();
    let flows: Vec<_> = routes.iter().map(|route| program.flow(route)).collect();
    program.encode(&flows)
}

/// Metrics that the registry exports, by the name that a query uses.
fn exported(page: &str) -> BTreeMap<String, Described> {
    let mut found: BTreeMap<String, Described> = BTreeMap::new();
    let mut help = "";
    let mut family = "";
    let mut name = String::new();
    for line in page.lines() {
        let words: Vec<_> = line.splitn(4, ' ').collect();
        match words.as_slice() {
            ["#", "HELP", of, ..] => (family, help) = (of, words[3].trim_end_matches('.')),
            ["#", "TYPE", of, kind] => {
                assert_eq!(*of, family);
                let suffix = match *kind {
                    "counter" => "_total",
                    "info" => "_info",
                    _ => "",
                };
                name = format!("{family}{suffix}");
                let kind = (*kind).to_owned();
                let described = Described { kind, help: help.to_owned(), ..Described::default() };
                found.insert(name.clone(), described);
            }
            [sample, ..] if *sample != "#" => {
                let labels = sample.split_once('{').map_or("", |(_, rest)| rest);
                let labels: Vec<_> = labels
                    .split(',')
                    .filter_map(|pair| pair.split_once('=').map(|(label, _)| label.to_owned()))
                    .filter(|label| label != "le")
                    .collect();
                found.get_mut(&name).unwrap().labels = labels;
            }
            _ => {}
        }
    }
    found
}

#[test]
fn documentation_lists_each_metric_as_it_is_exported() {
    let document = include_str!("../../docs/metrics.md");
    let written: Vec<_> = document
        .lines()
        .filter(|line| line.starts_with("| `postrider_") || line.starts_with("| `process_"))
        .collect();
    let rows: Vec<_> = exported(&page_of(&["default"]))
        .into_iter()
        .map(|(name, is)| {
            let labels: Vec<_> = is.labels.iter().map(|label| format!("`{label}`")).collect();
            let unit = ["seconds", "bytes"].into_iter().find(|unit| {
                name.strip_suffix("_total").unwrap_or(&name).ends_with(&format!("_{unit}"))
            });
            format!(
                "| `{name}` | {} | {} | {} | {} |",
                is.kind,
                unit.unwrap_or("–"),
                if labels.is_empty() { "–".to_owned() } else { labels.join(" ") },
                is.help
            )
        })
        .collect();
    let documented = written.join("\n");
    let rows = rows.join("\n");
    assert_eq!(documented, rows, "the table of docs/metrics.md shall be:\n{rows}");
}

#[test]
fn every_labelled_series_is_there_before_anything_happened() {
    let page = page_of(&["default"]);
    for series in [
        r#"postrider_publish_failures_total{route="default",error_type="busy",retryable="true"} 0"#,
        r#"postrider_publish_failures_total{route="default",error_type="rejected",retryable="false"} 0"#,
        r#"postrider_dead_lettered_total{route="default",reason="payload_too_large"} 0"#,
        r#"postrider_dependency_up{route="default",dependency="postgres"} 0"#,
        r#"postrider_dependency_reconnects_total{route="default",dependency="nats"} 0"#,
        r#"postrider_circuit_state{route="default",dependency="nats",state="closed"} 1"#,
        r#"postrider_circuit_state{route="default",dependency="nats",state="half_open"} 0"#,
        r#"postrider_database_query_duration_seconds_count{query="fetch"} 0"#,
        r#"postrider_rows_fetched_total{route="default",table="outbox"} 0"#,
        r#"postrider_delivery_latency_seconds_count{route="default"} 0"#,
    ] {
        assert!(page.contains(series), "{series} is not in\n{page}");
    }
}

#[test]
fn every_route_has_series_of_its_own_in_one_family() {
    let page = page_of(&["orders", "invoices"]);
    assert_eq!(page.matches("# TYPE postrider_messages_published counter").count(), 1, "{page}");
    for route in ["orders", "invoices"] {
        let series = format!("postrider_messages_published_total{{route=\"{route}\"}} 0");
        assert!(page.contains(&series), "{series} is not in\n{page}");
    }
}

#[test]
fn batch_is_counted_once_and_then_empty() {
    let program = ProgramMetrics::new();
    let metrics = program.flow("default");
    let mut batch = PublishedBatch::default();
    batch.stored(Duration::from_millis(2), Some(Duration::from_millis(30)));
    batch.deduplicated(Duration::from_millis(2), Some(Duration::from_secs(30)));
    metrics.publishing.published(&mut batch);
    metrics.publishing.published(&mut batch);
    let page = program.encode([&metrics]);
    for series in [
        r#"postrider_messages_published_total{route="default"} 2"#,
        r#"postrider_messages_deduplicated_total{route="default"} 1"#,
        r#"postrider_publish_duration_seconds_count{route="default"} 2"#,
        r#"postrider_delivery_latency_seconds_bucket{route="default",le="10.0"} 1"#,
    ] {
        assert!(page.contains(series), "{series} is not in\n{page}");
    }
}

#[test]
fn reconnects_and_transitions_count_changes_only() {
    let program = ProgramMetrics::new();
    let metrics = program.flow("default");
    let dependencies = &metrics.dependencies;
    dependencies.standing_by();
    dependencies.leading();
    dependencies.leading();
    dependencies.connected(Dependency::Postgres);
    dependencies.lost(Dependency::Postgres);
    dependencies.connected(Dependency::Postgres);
    dependencies.connected(Dependency::Postgres);
    dependencies.circuit(CircuitState::Open);
    let page = program.encode([&metrics]);
    for series in [
        r#"postrider_leader{route="default"} 1"#,
        r#"postrider_leader_transitions_total{route="default"} 1"#,
        r#"postrider_dependency_reconnects_total{route="default",dependency="postgres"} 1"#,
        r#"postrider_circuit_state{route="default",dependency="nats",state="closed"} 0"#,
        r#"postrider_circuit_state{route="default",dependency="nats",state="open"} 1"#,
    ] {
        assert!(page.contains(series), "{series} is not in\n{page}");
    }
}
