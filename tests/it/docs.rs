//! What `docs/` says of messages and consumers, held against the program.

use std::{collections::BTreeSet, fs, path::Path};

use super::support::{DEADLINE, Fixture};

fn page(name: &str) -> String {
    fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("docs").join(name)).unwrap()
}

/// The header names in the first column of the table of `event-format.md`.
fn documented_headers() -> BTreeSet<String> {
    let page = page("event-format.md");
    let table = page.split("\n## Headers\n").nth(1).unwrap().split("\n## ").next().unwrap();
    let names = table.lines().filter(|line| line.starts_with("| `")).flat_map(|line| {
        let cell = line.split('|').nth(1).unwrap();
        cell.split('`').skip(1).step_by(2).map(str::to_owned)
    });
    names.collect()
}

#[tokio::test]
async fn the_event_format_names_every_header_and_no_other() {
    let fixture = Fixture::new().await;
    let client = fixture.connect().await;
    let everything = r#"
        INSERT INTO "postrider".outbox (
            event_type, aggregate_type, aggregate_id, aggregate_version, source, headers,
            correlation_id, causation_id, actor)
        VALUES ('order.deleted', 'order', '17', 3, 'shop',
            '{"traceparent": "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01",
              "tracestate": "a=b"}', 'c', 'd', 'ann')"#;
    client.batch_execute(everything).await.unwrap();
    let _relay = fixture.daemon().start();
    let stored = fixture.wait_stored(1, DEADLINE).await;
    let mut names: BTreeSet<String> =
        stored[0].headers.iter().map(|(name, _)| name.to_string()).collect();
    // Those of a batch, which this event did not go in; `batches.rs` sees them on others.
    names.extend(["Id", "Sequence", "Commit"].map(|part| format!("Nats-Batch-{part}")));
    assert_eq!(documented_headers(), names);
}

#[tokio::test]
async fn the_consumers_guide_can_be_pasted_into_psql() {
    let fixture = Fixture::new().await;
    let client = fixture.connect().await;
    let page = page("consumer-guide.md");
    let statements: Vec<&str> =
        page.split("```sql\n").skip(1).map(|block| block.split("```").next().unwrap()).collect();
    assert!(!statements.is_empty());
    for statement in statements {
        client.batch_execute(statement).await.unwrap();
    }
}
