//! Faults P: Postgres ends sessions, crashes, freezes, or is locked, out of connections, or
//! altered.

use std::{fs, time::Duration};

use postrider::dev::{
    checker::Ledger,
    servers::{Postgres, Signal, send_signal},
    workload::Options,
};

use crate::{
    fault::{Fault, Set, Tally},
    scene::{conclude, daemon, look_at_resources, pause, steady, under_load},
    support::{
        DEADLINE, Fixture, daemon, eventually, let_pass,
        postgres::{self, without_two_phase_commit},
    },
};

pub(crate) const FAULTS: &[Fault] = &[
    Fault {
        id: "P1",
        what: "pg_terminate_backend of the program's sessions and a writer's",
        pr: 20,
        nightly: 500,
        set: 50,
        inflict: |set| Box::pin(cut_sessions(set)),
    },
    Fault {
        id: "P2",
        what: "SIGKILL of the postmaster, immediate and fast stops, started again",
        pr: 3,
        nightly: 60,
        set: 6,
        inflict: |set| Box::pin(crash(set)),
    },
    Fault {
        id: "P3",
        what: "SIGSTOP of all of Postgres for 5 s",
        pr: 2,
        nightly: 30,
        set: 3,
        inflict: |set| Box::pin(freeze(set)),
    },
    Fault {
        id: "P10",
        what: "transactions open during the whole run, here and in another database",
        pr: 1,
        nightly: 3,
        set: 1,
        inflict: |set| Box::pin(old_transactions(set)),
    },
    Fault {
        id: "P12",
        what: "columns added, tables rewritten, indexes rebuilt, the migration run again",
        pr: 4,
        nightly: 40,
        set: 8,
        inflict: |set| Box::pin(alter(set)),
    },
    Fault {
        id: "P14",
        what: "locked tables, cancelled statements, no connection left, sessions refused",
        pr: 5,
        nightly: 100,
        set: 10,
        inflict: |set| Box::pin(refuse(set)),
    },
    Fault {
        id: "W1",
        what: "the wake-up gate closed behind the back of a program that sleeps",
        pr: 3,
        nightly: 60,
        set: 6,
        inflict: |set| Box::pin(close_gate(set)),
    },
];

/// The program, which gives up a statement after one second.
fn impatient(fixture: &Fixture) -> daemon::DaemonBuilder {
    daemon(fixture).set("database.query_timeout", "1s")
}

async fn cut_sessions(mut set: Set) -> Tally {
    let fixture = Fixture::new().await;
    let mut daemon = daemon(&fixture).start();
    daemon.wait_log("relaying", DEADLINE).await;
    let options = steady(&set);
    let strikes = async {
        let client = fixture.connect().await;
        // Each round ends the sessions of the program and at most one of a writer.
        let statement = "SELECT pg_terminate_backend(pid) FROM (
                SELECT pid FROM pg_stat_activity
                WHERE datname = current_database() AND pid <> pg_backend_pid()
                ORDER BY application_name LIKE 'postrider/%' DESC, random() LIMIT 3
            ) AS victim";
        for _ in 0..set.strikes {
            pause(&mut set, 50..=500).await;
            client.query(statement, &[]).await.unwrap();
        }
    };
    let (ledger, ()) = under_load(&fixture, options, strikes).await;
    let mut tally = conclude(&fixture, &ledger, &set).await;
    let hit = daemon.log().contains("the relay stopped leading");
    tally.complain((!hit).then(|| "no session of the program was hit".to_owned()));
    look_at_resources(&daemon, &mut tally);
    tally
}

async fn crash(mut set: Set) -> Tally {
    let mut fixture = Fixture::own_postgres().await;
    let _daemon = daemon(&fixture).start();
    let workload = (fixture.workload(steady(&set)), tokio_util::sync::CancellationToken::new());
    let postgres = fixture.postgres.own();
    let strikes = async {
        for strike in 0..set.strikes {
            pause(&mut set, 300..=1_500).await;
            match strike % 3 {
                0 => postgres.kill9().unwrap(),
                1 => postgres.stop_immediate().await.unwrap(),
                _ => postgres.stop_fast().await.unwrap(),
            }
            pause(&mut set, 0..=1_000).await;
            postgres.start_again().await.unwrap();
        }
        workload.1.cancel();
    };
    let (ledger, ()) = tokio::join!(workload.0.run(&workload.1), strikes);
    conclude(&fixture, &ledger.unwrap(), &set).await
}

/// Process ids of the postmaster and its children. The children have left its process group, so
/// they have to be frozen one by one.
fn processes(postgres: &Postgres) -> Vec<u32> {
    let postmaster = postgres.pid().expect("a running Postgres");
    let parent = |pid: u32| {
        let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
        stat.rsplit_once(')')?.1.split_whitespace().nth(1)?.parse::<u32>().ok()
    };
    let all = fs::read_dir("/proc").into_iter().flatten().flatten();
    let pids = all.filter_map(|entry| entry.file_name().to_str()?.parse::<u32>().ok());
    let mut found: Vec<u32> = pids.filter(|pid| parent(*pid) == Some(postmaster)).collect();
    found.push(postmaster);
    found
}

async fn freeze(mut set: Set) -> Tally {
    if !fs::exists("/proc/1/stat").unwrap_or(false) {
        return Tally::skipped("no /proc has Postgres' processes");
    }
    let fixture = Fixture::own_postgres().await;
    // A sleeping relay sends no statements, so it has to poll more often than Postgres is frozen.
    let mut daemon = impatient(&fixture).set("relay.idle_interval", "1s").start();
    daemon.wait_log("relaying", DEADLINE).await;
    let options = steady(&set);
    let strikes = async {
        for _ in 0..set.strikes {
            pause(&mut set, 300..=1_000).await;
            let frozen = processes(&fixture.postgres);
            for pid in &frozen {
                // The error is ignored, because the process may have ended already.
                drop(send_signal(*pid, Signal::Stop));
            }
            let_pass(Duration::from_secs(5)).await;
            for pid in &frozen {
                drop(send_signal(*pid, Signal::Continue));
            }
        }
    };
    let (ledger, ()) = under_load(&fixture, options, strikes).await;
    let mut tally = conclude(&fixture, &ledger, &set).await;
    let noticed = daemon.log().contains("the relay stopped leading");
    tally.complain((!noticed).then(|| "a silent Postgres was not noticed".to_owned()));
    look_at_resources(&daemon, &mut tally);
    tally
}

/// Asserts that rows of later transactions are published, however long older transactions stay
/// open.
async fn old_transactions(set: Set) -> Tally {
    let fixture = Fixture::own_postgres().await;
    fixture.postgres.execute("postgres", "CREATE DATABASE elsewhere").await.unwrap();
    let here = fixture.connect().await;
    let writes = fixture.connect().await;
    let elsewhere = postgres::connect(&fixture.postgres.url("elsewhere")).await;
    for client in [&here, &elsewhere] {
        client
            .batch_execute(
                "BEGIN ISOLATION LEVEL REPEATABLE READ; SELECT pg_current_xact_id(), count(*) FROM pg_class",
            )
            .await
            .unwrap();
    }
    writes
        .batch_execute(
            r#"BEGIN; SELECT "postrider".emit(event_type => 'order.placed', payload => '{}')"#,
        )
        .await
        .unwrap();
    let daemon = daemon(&fixture).start();
    let (ledger, ()) = under_load(&fixture, steady(&set), let_pass(Duration::from_secs(15))).await;
    // The comparison is made while the old transactions are still open, and again after their end.
    let mut tally = conclude(&fixture, &ledger, &set).await;
    writes.batch_execute("ROLLBACK").await.unwrap();
    let report = conclude(&fixture, &ledger, &set).await;
    let ended = !report.is_clean();
    tally.complain(ended.then(|| format!("after the old ones ended: {:?}", report.complaints)));
    look_at_resources(&daemon, &mut tally);
    tally
}

async fn alter(mut set: Set) -> Tally {
    let fixture = Fixture::own_postgres().await;
    let _daemon = daemon(&fixture).start();
    let options = steady(&set);
    let toml = fixture.toml();
    let strikes = async {
        let client = fixture.connect().await;
        // An additional column could disturb later plans, and the other statements rewrite tables
        // that the relay reads.
        let statements = [
            r#"ALTER TABLE "postrider".outbox ADD COLUMN extra text"#,
            r#"VACUUM FULL "postrider".position"#,
            r#"REINDEX INDEX CONCURRENTLY "postrider".position_pkey"#,
            r#"ANALYZE "postrider".outbox"#,
            r#"ALTER TABLE "postrider".outbox DROP COLUMN extra"#,
            r#"VACUUM FULL "postrider".outbox_3"#,
            r#"REINDEX TABLE CONCURRENTLY "postrider".outbox_4"#,
            "ALTER DATABASE postgres SET work_mem = '4MB'",
        ];
        for strike in 0..set.strikes {
            pause(&mut set, 200..=800).await;
            client.batch_execute(statements[strike as usize % statements.len()]).await.unwrap();
            let migrations =
                tokio::join!(daemon::run(&toml, &["migrate"]), daemon::run(&toml, &["migrate"]));
            assert_eq!(
                (migrations.0.code, migrations.1.code),
                (Some(0), Some(0)),
                "{migrations:?}"
            );
        }
    };
    let (ledger, ()) = under_load(&fixture, options, strikes).await;
    conclude(&fixture, &ledger, &set).await
}

async fn refuse(mut set: Set) -> Tally {
    let mut postgres = without_two_phase_commit();
    postgres.max_connections = 30;
    let fixture = Fixture::with(Some(postgres), None).await;
    let daemon = impatient(&fixture).start();
    let mut options = steady(&set);
    options.writers = 4;
    let strikes = async {
        let client = fixture.connect().await;
        for strike in 0..set.strikes {
            pause(&mut set, 300..=800).await;
            match strike % 5 {
                // The lock is as strong as one that a migration takes on the table.
                0 => lock(&client, r#"LOCK TABLE "postrider".position IN EXCLUSIVE MODE"#).await,
                1 => {
                    lock(&client, r#"LOCK TABLE "postrider".letter IN ACCESS EXCLUSIVE MODE"#)
                        .await;
                }
                2 => cancel(&client).await,
                3 => crowd_out(&fixture, &client).await,
                _ => shut_out(&fixture, &client).await,
            }
        }
    };
    let (ledger, ()) = under_load(&fixture, options, strikes).await;
    let mut tally = conclude(&fixture, &ledger, &set).await;
    look_at_resources(&daemon, &mut tally);
    tally
}

/// Takes a lock for longer than the program waits for a statement.
async fn lock(client: &tokio_postgres::Client, statement: &str) {
    client.batch_execute(&format!("BEGIN; {statement}")).await.unwrap();
    let_pass(Duration::from_millis(1_500)).await;
    client.batch_execute("COMMIT").await.unwrap();
}

/// Cancels the program's running statements again and again.
async fn cancel(client: &tokio_postgres::Client) {
    for _ in 0..100 {
        let statement = "SELECT pg_cancel_backend(pid) FROM pg_stat_activity
            WHERE application_name LIKE 'postrider/%' AND datname = current_database()";
        client.query(statement, &[]).await.unwrap();
        let_pass(Duration::from_millis(5)).await;
    }
}

const TERMINATE: &str = "SELECT pg_terminate_backend(pid) FROM pg_stat_activity
    WHERE application_name LIKE 'postrider/%' AND datname = current_database()";

/// Takes all connections of the server, after the program's own were ended. The program can then
/// not connect.
async fn crowd_out(fixture: &Fixture, client: &tokio_postgres::Client) {
    let url = fixture.postgres.url("postgres");
    client.query(TERMINATE, &[]).await.unwrap();
    let mut guests = Vec::new();
    for _ in 0..40 {
        // The last attempts are refused, which shows that no connection is left.
        let guest = tokio_postgres::connect(&url, tokio_postgres::NoTls).await;
        guests.extend(guest);
    }
    let_pass(Duration::from_secs(1)).await;
    drop(guests);
    eventually("room for a connection", DEADLINE, async || {
        tokio_postgres::connect(&url, tokio_postgres::NoTls).await.is_ok()
    })
    .await;
}

/// Makes new sessions read-only for 700 ms, so that the program cannot use them. The program's
/// sessions are ended at the beginning and at the end.
async fn shut_out(fixture: &Fixture, client: &tokio_postgres::Client) {
    let database = &fixture.database;
    let set = |text: &str| format!("ALTER DATABASE {database} {text}");
    client.batch_execute(&set("SET default_transaction_read_only = on")).await.unwrap();
    client.query(TERMINATE, &[]).await.unwrap();
    let_pass(Duration::from_millis(700)).await;
    client
        .batch_execute(&format!(
            "SET default_transaction_read_only = off; {}",
            set("RESET default_transaction_read_only")
        ))
        .await
        .unwrap();
    // A session keeps the settings with which it began, so the program's sessions are ended once
    // more.
    client.query(TERMINATE, &[]).await.unwrap();
}

/// Closes the wake-up gate, so that no insert notifies the relay, and it finds rows only by its
/// slow poll.
async fn close_gate(mut set: Set) -> Tally {
    let fixture = Fixture::new().await;
    let _daemon = daemon(&fixture).set("relay.idle_interval", "1s").start();
    let client = fixture.connect().await;
    let mut ledger = Ledger::default();
    for _ in 0..set.strikes {
        fixture.wait_gate_open(&client).await;
        pause(&mut set, 0..=1_000).await;
        let closed = include_str!("../../../src/outbox/sql/open_gate.sql");
        client.query_one(closed, &[&0_i64]).await.unwrap();
        let options = Options { events: 20, seed: set.random.draw(), ..steady(&set) };
        ledger.absorb(fixture.work(options).await);
        if !fixture.wait_drained(Duration::from_secs(20)).await {
            break;
        }
    }
    conclude(&fixture, &ledger, &set).await
}
