//! Fault K2: the program dies at a named point of its source code (a failpoint).

use postrider::dev::checker::{Digest, Ledger, Nanos, Row, Transaction, TransactionFate};
use tokio_postgres::Client;

use super::daemon::quick_or_slow;
use crate::{
    fault::{Fault, Set, Tally},
    scene::{conclude_with_dead, daemon, steady, under_load},
    support::{
        DEADLINE, Fixture,
        daemon::{Daemon, run_with},
        postgres,
        proxy::Proxy,
    },
};

pub(crate) const FAULTS: &[Fault] = &[Fault {
    id: "K2",
    what: "the program aborts at each of its fail points",
    pr: 32,
    nightly: 960,
    set: 32,
    inflict: |set| Box::pin(abort(set)),
}];

/// Failpoints, each with the number of times that the program passes it before it dies. Each strike
/// takes the next one.
const POINTS: [(&str, u32); 17] = [
    // There is no failpoint between a settlement and its records, because one statement writes
    // both.
    ("held", 1),
    ("scanned", 1),
    ("fetched", 20),
    ("publish", 100),
    ("handed-over", 100),
    ("in-flight", 100),
    ("answered", 100),
    ("settle", 10),
    ("settled", 10),
    ("settle-letters", 1),
    ("settled-letters", 1),
    ("retain", 1),
    ("retained", 1),
    ("stopping", 1),
    ("migrate", 1),
    ("migrate-functions", 1),
    ("migrated", 1),
];

async fn abort(mut set: Set) -> Tally {
    if !cfg!(feature = "failpoints") {
        return Tally::skipped("needs cargo's --features failpoints, as make torture has it");
    }
    let fixture = Fixture::new().await;
    let proxy = Proxy::start(fixture.nats.port()).await.unwrap();
    // When the program dies after it has made a letter, the next run logs that letter.
    let daemon = || {
        let url = format!("nats://127.0.0.1:{}", proxy.port());
        daemon(&fixture).set("nats.url", url).allow_log("became a dead letter")
    };
    let mut healthy = Some(daemon().start());
    let options = steady(&set);
    let client = fixture.connect().await;
    let strikes = async {
        let mut dead = Vec::new();
        for strike in 0..set.strikes {
            let (point, most) = POINTS[strike as usize % POINTS.len()];
            let chosen = format!("{point}:{}", set.random.between(1, most));
            if point.starts_with("migrate") {
                migrate(&fixture, &client, &chosen).await;
                continue;
            }
            drop(healthy.take());
            proxy.set(quick_or_slow(&mut set));
            if point.ends_with("letters") {
                dead.push(poison(&client).await);
            }
            die(daemon().env("FP", &chosen).start(), point).await;
            healthy = Some(daemon().start());
        }
        dead
    };
    let (mut ledger, dead) = under_load(&fixture, options, strikes).await;
    let count = dead.len() as u64;
    ledger.absorb(Ledger { transactions: dead });
    conclude_with_dead(&fixture, &ledger, &set, count).await
}

/// Waits until the program has aborted at its failpoint.
async fn die(mut daemon: Daemon, point: &str) {
    if point == "stopping" {
        daemon.wait_log("relaying", DEADLINE).await;
        daemon.terminate();
    }
    assert_eq!(daemon.wait_exit(DEADLINE).await, None, "not aborted at {point}");
    let said = format!("fail point {point} passed");
    assert!(daemon.log().contains(&said), "ended elsewhere than at {point}");
}

/// Commits an event that can never be published, because it has two payloads.
async fn poison(client: &Client) -> Transaction {
    let statement = r#"INSERT INTO "postrider".outbox (event_type, payload, payload_binary)
        VALUES ('order.placed', '{}', 'x') RETURNING event_id"#;
    let id = client.query_one(statement, &[]).await.unwrap().get(0);
    let none = Digest::default();
    let row = Row { id, key: None, key_seq: 0, subject: none, payload: none, headers: none };
    let (begin, end) = (Nanos::default(), Nanos::default());
    Transaction { writer: u32::MAX, begin, end, fate: TransactionFate::Committed, rows: vec![row] }
}

/// Runs a migration that dies at a failpoint, and then one that completes it. The rights have to be
/// complete too.
async fn migrate(fixture: &Fixture, client: &Client, chosen: &str) {
    let bare = format!("{}_bare", fixture.database);
    client.batch_execute(&format!("DROP DATABASE IF EXISTS {bare}")).await.unwrap();
    client.batch_execute(&format!("CREATE DATABASE {bare}")).await.unwrap();
    let toml = fixture.toml().set("database.url", fixture.postgres.url(&bare));
    let died = run_with(&toml, &["migrate"], &[("FP", chosen)]).await;
    assert_eq!(died.code, None, "not aborted at {chosen}: {died:?}");
    let again = run_with(&toml, &["migrate"], &[]).await;
    assert_eq!(again.code, Some(0), "after {chosen}: {again:?}");
    let there = postgres::connect(&fixture.postgres.url(&bare)).await;
    let statement = "SELECT bool_and(has_table_privilege('postrider_relay', oid, 'SELECT'))
        FROM pg_class WHERE relnamespace = 'postrider'::regnamespace AND relkind = 'r'
        AND relname = 'migration'";
    let may: Option<bool> = there.query_one(statement, &[]).await.unwrap().get(0);
    assert_eq!(may, Some(true), "after {chosen} the relay may not read the schema's version");
}
