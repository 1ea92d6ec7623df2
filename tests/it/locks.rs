//! Tests of locks: a command or a relay that waits for another session's lock names that session.

use std::time::{Duration, Instant};

use futures_util::future::join_all;
use postrider::dev::servers::PgbouncerOptions;

use super::support::{
    DEADLINE, Fixture, app,
    daemon::{self, Finished},
    eventually,
    letters::json,
    toml::Toml,
};

/// Tables of the schema that commands read or write.
const TABLES: [&str; 8] =
    ["position", "letter", "loss", "contract", "outbox", "checkpoint", "audit", "migration"];

/// A session named `alembic`, with an open transaction that has locked a table.
struct Locker {
    client: tokio_postgres::Client,
    pid: i32,
}

impl Locker {
    async fn lock(fixture: &Fixture, statement: &str) -> Self {
        let client = fixture.connect().await;
        client.batch_execute("SET application_name = 'alembic'; BEGIN").await.unwrap();
        let pid = client.query_one("SELECT pg_backend_pid()", &[]).await.unwrap().get(0);
        client.batch_execute(statement).await.unwrap();
        Self { client, pid }
    }

    async fn lock_table(fixture: &Fixture, table: &str) -> Self {
        let lock = format!("LOCK TABLE postrider.{table} IN ACCESS EXCLUSIVE MODE");
        Self::lock(fixture, &lock).await
    }

    /// SQL call that ends the locking session, as the messages have to print it.
    fn ended_by(&self) -> String {
        format!("pg_terminate_backend({})", self.pid)
    }

    async fn release(&self) {
        self.client.batch_execute("ROLLBACK").await.unwrap();
    }
}

/// Configuration with long statement deadlines, so that a statement that waits for a lock ends by
/// `lock_timeout` first.
fn with_long_timeouts(fixture: &Fixture) -> Toml {
    fixture.toml().set("database.query_timeout", "30s")
}

async fn run(toml: &Toml, command: &str) -> Finished {
    let args: Vec<_> = command.split(' ').collect();
    daemon::run(toml, &args).await
}

/// Former defect: commands ended with UNKNOWN or a bare "lock timeout", without the session that
/// held the lock.
#[tokio::test]
async fn a_command_that_waits_for_a_lock_names_the_session_that_holds_it() {
    const COMMANDS: [&str; 9] = [
        "status",
        "status --check",
        "check",
        "why order/o-1",
        "dlq list",
        "dlq discard --all --yes --reason test",
        "audit --database-only",
        "relay list",
        "migrate",
    ];
    let of_table = async |table| {
        let fixture = Fixture::new().await;
        let toml = with_long_timeouts(&fixture);
        // The relay runs once, so that a position exists, and a stream for `check`.
        let mut daemon = fixture.daemon().allow_log("waiting for Postgres").start();
        app::emit(&fixture.connect().await, "order.placed", None, "{}").await;
        fixture.wait_stored(1, DEADLINE).await;
        daemon.stop().await;
        let locker = Locker::lock_table(&fixture, table).await;
        let mut named = Vec::new();
        for command in COMMANDS {
            let what = format!("{command}, which names who has locked {table}");
            // On a very busy machine the question who holds the lock may time out, so the command
            // is then repeated.
            let (finished, said, is_named) = eventually(what, DEADLINE, async || {
                let finished = run(&toml, command).await;
                let said = format!("{}{}", finished.stdout, finished.stderr);
                let is_named = said.contains(&locker.ended_by()) && said.contains("alembic");
                (is_named || !said.contains("timeout")).then_some((finished, said, is_named))
            })
            .await;
            // No relay runs, so `status --check` has to be critical in any case.
            let is_critical = command != "status --check" || finished.code == Some(2);
            assert!(is_critical, "{table}, {command}: {said}");
            if is_named {
                named.push(command);
                assert!([Some(2), Some(0), Some(69)].contains(&finished.code), "{finished:?}");
            }
        }
        (table, named)
    };
    let mut reports = Vec::new();
    // Three tables are tested at a time, because each needs a database.
    for tables in TABLES.chunks(3) {
        reports.extend(join_all(tables.iter().map(|table| of_table(*table))).await);
    }
    for (table, named) in reports {
        // A command that does not read the locked table is not delayed, so it does not have to name
        // the session.
        let is_reported = |command| named.contains(&command);
        if !["checkpoint", "audit", "migration"].contains(&table) {
            assert!(is_reported("status"), "{table}: {named:?}");
        }
        if !["checkpoint", "audit"].contains(&table) {
            assert!(is_reported("check") || table == "loss", "{table}: {named:?}");
        }
        assert!(table != "migration" || is_reported("migrate"), "{table}: {named:?}");
        assert!(
            table != "letter" || is_reported("dlq list") && is_reported("why order/o-1"),
            "{named:?}"
        );
    }
}

/// Former defect: an instance took the lease, waited for the lock and gave the lease up, again and
/// again. `status --check` reported OK.
#[tokio::test]
async fn an_instance_that_a_lock_keeps_from_leading_is_never_fine() {
    for lock in [
        "SELECT FROM postrider.contract FOR UPDATE",
        "LOCK TABLE postrider.contract IN ACCESS EXCLUSIVE MODE",
    ] {
        let fixture = Fixture::new().await;
        let toml = with_long_timeouts(&fixture);
        let mut daemon = fixture.daemon().admin().allow_log("waiting for Postgres").start();
        daemon.wait_log("stream verified", DEADLINE).await;
        daemon.stop().await;
        let locker = Locker::lock(&fixture, lock).await;
        daemon.start_again();
        let began = Instant::now();
        // In this time the relay makes several attempts, and each takes the lease.
        while began.elapsed() < Duration::from_secs(8) {
            let finished = run(&toml, "status --check").await;
            assert_eq!(finished.code, Some(2), "{lock}: {finished:?}");
        }
        let line = daemon.wait_log("waiting for Postgres", DEADLINE).await;
        assert!(line.contains(&locker.ended_by()), "{lock}: {line}");
        let body = eventually("postgres_locked", DEADLINE, async || {
            let answer = daemon.get("/readyz?verbose").await?;
            (answer.status == 503 && answer.body.contains("postgres_locked")).then_some(answer.body)
        })
        .await;
        assert!(body.contains(&locker.ended_by()), "{lock}: {body}");
        eventually("status --check names it", DEADLINE, async || {
            run(&toml, "status --check").await.stdout.contains(&locker.ended_by())
        })
        .await;

        locker.release().await;
        daemon.wait_log("relaying", DEADLINE).await;
        eventually("no finding", DEADLINE, async || {
            json(&toml, &["status"]).await["findings"].as_array().unwrap().is_empty()
        })
        .await;
    }
}

/// Another session has read the relay's row of the position table with FOR UPDATE, and keeps the
/// transaction open.
#[tokio::test]
async fn a_locked_row_of_the_position_names_the_session_too() {
    let fixture = Fixture::new().await;
    let toml = with_long_timeouts(&fixture);
    let mut daemon = fixture
        .daemon()
        .set("relay.lease", "3s")
        .admin()
        .allow_log(" WARN ")
        .allow_log(" ERROR ")
        .start();
    daemon.wait_log("stream verified", DEADLINE).await;
    let client = fixture.connect().await;
    let pid: i32 = client.query_one("SELECT pg_backend_pid()", &[]).await.unwrap().get(0);
    let lock = "BEGIN; SELECT FROM postrider.position FOR UPDATE";
    client.batch_execute(lock).await.unwrap();
    let ends = format!("pg_terminate_backend({pid})");
    eventually("status --check names it", DEADLINE, async || {
        let finished = run(&toml, "status --check").await;
        finished.code == Some(2) && finished.stdout.contains(&ends)
    })
    .await;
    eventually("/readyz names it", DEADLINE, async || {
        let answer = daemon.get("/readyz?verbose").await.unwrap();
        answer.status == 503 && answer.body.contains(&ends)
    })
    .await;
    client.batch_execute("ROLLBACK").await.unwrap();
    eventually("no finding", 3 * DEADLINE, async || {
        run(&toml, "status --check").await.code == Some(0)
    })
    .await;
}

/// Behind a pooler nobody can tell which session waits. The finding still has to be a lock, and not
/// UNKNOWN.
#[tokio::test]
async fn a_lock_behind_a_pooler_is_critical_too() {
    let fixture = Fixture::new().await;
    let pooler = fixture.pooler(PgbouncerOptions::default()).await;
    let toml = fixture.toml().set("database.url", pooler.url(&fixture.database));
    let locker = Locker::lock_table(&fixture, "position").await;
    let finished = run(&toml, "status --check").await;
    assert_eq!(finished.code, Some(2), "{finished:?}");
    assert!(finished.stdout.contains("postgres_locked: another session"), "{finished:?}");
    locker.release().await;
}
