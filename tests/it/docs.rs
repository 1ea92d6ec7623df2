//! Tests that compare the pages in `docs/` with what the program does.

use std::{collections::BTreeSet, fs, path::Path, process::Command};

use super::support::{
    DEADLINE, Fixture, app, daemon, eventually, letters::done, postgres, sandbox::Sandbox,
};

/// Code blocks of a page in this language.
fn blocks(page: &str, language: &str) -> Vec<String> {
    let fence = format!("```{language}\n");
    let blocks: Vec<String> = page
        .split(fence.as_str())
        .skip(1)
        .map(|block| block.split("```").next().unwrap().to_owned())
        .collect();
    assert!(!blocks.is_empty(), "no block in {language}");
    blocks
}

/// A migrated database with the table `orders`, into which the pages insert.
async fn with_orders() -> (Fixture, tokio_postgres::Client) {
    let fixture = Fixture::new().await;
    let client = fixture.connect().await;
    let table = "CREATE TABLE orders (id text PRIMARY KEY, total numeric NOT NULL)";
    client.batch_execute(table).await.unwrap();
    (fixture, client)
}

async fn count(client: &tokio_postgres::Client, table: &str) -> i64 {
    client.query_one(&format!("SELECT count(*) FROM {table}"), &[]).await.unwrap().get(0)
}

fn page(name: &str) -> String {
    fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("docs").join(name)).unwrap()
}

/// Names of headers in the first column of the table in `event-format.md`.
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
    // This event went in no batch, so the headers of a batch are added here. `batches.rs` tests
    // them.
    names.extend(["Id", "Sequence", "Commit"].map(|part| format!("Nats-Batch-{part}")));
    assert_eq!(documented_headers(), names);
}

#[tokio::test]
async fn the_consumers_guide_can_be_pasted_into_psql() {
    let fixture = Fixture::new().await;
    let client = fixture.connect().await;
    for statement in blocks(&page("consumer-guide.md"), "sql") {
        client.batch_execute(&statement).await.unwrap();
    }
}

#[tokio::test]
async fn the_readme_can_be_followed_from_the_configuration_to_the_event() {
    let readme = page("../README.md");
    for toml in blocks(&readme, "toml") {
        let shown = Sandbox::new().file("postrider.toml", &toml).run(&["config", "show"]);
        assert_eq!((shown.code, shown.stderr.as_str()), (Some(0), ""), "{shown:?}");
    }
    let fixture = Fixture::new().await;
    let client = fixture.connect().await;
    for statements in blocks(&readme, "sql") {
        client.batch_execute(&statements).await.unwrap();
    }
    assert_eq!(count(&client, "postrider.outbox").await, 2);
}

/// Follows the steps of "Run it for real" in the README, with names that no other test uses.
#[tokio::test]
async fn the_readme_can_be_followed_from_an_empty_server_to_a_running_relay() {
    let readme = page("../README.md");
    let steps =
        readme.split("\n## Run it for real\n").nth(1).unwrap().split("\n## ").next().unwrap();
    let fixture = Fixture::new().await;
    let own = format!("{}_shop", fixture.database);
    let blocks: Vec<String> =
        blocks(steps, "pgsql").iter().map(|block| block.replace("shop", &own)).collect();
    let [users, rights] = blocks.as_slice() else { panic!("{blocks:?}") };
    let execute = async |block: &str| {
        for statement in block.split(';') {
            fixture.postgres.execute("postgres", statement).await.unwrap();
        }
    };
    execute(users).await;
    let url = |user: &str| {
        fixture.postgres.url(&own).replace("postgres@", &format!("{own}_{user}:change%20me@"))
    };
    let as_user = |user: &str| fixture.toml().set("database.url", url(user));
    done(&as_user("owner"), &["migrate"]).await;
    let early = daemon::run(&as_user("relay"), &["check"]).await;
    assert_eq!(early.code, Some(77), "nothing is granted yet: {early:?}");
    execute(rights).await;
    let toml = as_user("relay");
    done(&toml, &["check"]).await;
    let relay = fixture.daemon().config(|_| toml.clone()).start();
    let application = postgres::connect(&url("app")).await;
    app::emit(&application, "order.placed", Some(("order", "o-1")), "{}").await;
    fixture.wait_stored(1, DEADLINE).await;
    eventually("a backlog of 0", DEADLINE, async || {
        done(&toml, &["status"]).await.contains("backlog       0 events")
    })
    .await;
    drop(relay);
    let unit = include_str!("../../deploy/systemd/postrider.service");
    assert!(steps.contains("/usr/bin/postrider") && unit.contains("ExecStart=/usr/bin/postrider "));
    assert!(unit.contains("--config /etc/postrider/postrider.toml"), "{unit}");
}

/// The wake-up gate and the publishing gate share a word, so a page has to say which one it means.
#[test]
fn every_gate_on_a_page_says_which_one_it_is() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut pages = vec![root.join("README.md"), root.join("ARCHITECTURE.md")];
    for folder in ["docs", "docs/adr"] {
        let files = fs::read_dir(root.join(folder)).unwrap().map(|file| file.unwrap().path());
        pages.extend(files.filter(|file| file.extension().is_some_and(|it| it == "md")));
    }
    assert!(pages.len() > 20, "{pages:?}");
    for page in pages {
        let text = fs::read_to_string(&page).unwrap().to_lowercase();
        let words: Vec<&str> = text.split_whitespace().collect();
        for (index, word) in words.iter().enumerate().skip(1) {
            let bare = word.trim_matches(|c: char| !c.is_alphanumeric() && c != '`');
            let before = words[index - 1].trim_matches(|c: char| !c.is_alphanumeric());
            let is_named = ["wake-up", "publishing"].contains(&before);
            assert!(bare != "gate" || is_named, "{}: {before} {word}", page.display());
        }
    }
}

#[tokio::test]
async fn the_producers_page_emits_from_every_language() {
    let page = page("producers.md");
    let (fixture, client) = with_orders().await;
    let mut emitted = 0;
    for statements in blocks(&page, "sql") {
        client.batch_execute(&statements).await.unwrap();
        emitted += 1;
    }
    let python = Path::new(env!("CARGO_MANIFEST_DIR")).join(".tools/venv/bin/python");
    for script in blocks(&page, "python") {
        let output = Command::new(&python)
            .args(["-c", &script])
            .env("DATABASE_URL", fixture.database_url())
            .output()
            .expect("no Python in .tools/venv: run deploy/dev/install-services.sh examples");
        assert!(output.status.success(), "{script}\n{}", String::from_utf8_lossy(&output.stderr));
        emitted += 1;
    }
    assert_eq!(emitted, 4);
    assert_eq!(count(&client, "postrider.outbox").await, emitted);
    assert_eq!(count(&client, "orders").await, emitted);
    // The other languages need toolchains, so `make drivers` runs them. Here Postgres only parses
    // their statements.
    for language in ["javascript", "go", "java"] {
        let code = blocks(&page, language).concat();
        let emit = code.split('"').find(|text| text.starts_with("SELECT postrider.emit")).unwrap();
        let numbered = emit.replacen('?', "$1", 1).replacen('?', "$2", 1);
        let statement = client.prepare(&numbered).await.unwrap();
        assert_eq!(statement.params().len(), 2, "{language}: {numbered}");
    }
}
