//! Tests of rotated secrets and a changed configuration while the program runs.

use std::{fs, os::unix::fs::PermissionsExt as _, path::Path, time::Duration};

use postrider::dev::servers::{NatsOptions, Signal};

use super::support::{
    DEADLINE, Fixture, app, audit::steady, daemon, eventually, let_pass,
    postgres::without_two_phase_commit, toml::Toml,
};

const SUCCESSFUL: &str = "postrider_config_last_reload_successful";

fn write(path: &Path, text: &str) {
    fs::write(path, text).unwrap();
    fs::set_permissions(path, fs::Permissions::from_mode(0o600)).unwrap();
}

/// Configuration of a NATS server with a user `relay`, whose password is given. A client without a
/// login is another user.
fn users(password: &str) -> String {
    format!(
        "authorization {{ users: [ {{ user: open, password: open }}, \
         {{ user: relay, password: {password} }} ] }}\nno_auth_user: open"
    )
}

// Former defect: a rotated secret needed a restart, and SIGHUP killed the program.
#[tokio::test(flavor = "multi_thread")]
async fn secrets_rotated_under_load_cost_nothing_and_need_no_restart() {
    let nats = NatsOptions { extra: users("old"), ..NatsOptions::default() };
    let mut fixture = Fixture::with(Some(without_two_phase_commit()), Some(nats)).await;
    let directory = tempfile::tempdir().unwrap();
    let (url_file, password_file) =
        (directory.path().join("database-url"), directory.path().join("nats-password"));
    let url = fixture.database_url();
    let renew = |password: &str| {
        write(&url_file, &url.replace("postgres@", &format!("rotating:{password}@")));
        write(&password_file, password);
    };
    renew("old");
    let create = "CREATE ROLE rotating LOGIN PASSWORD 'old' IN ROLE postrider_relay";
    fixture.postgres.execute("postgres", create).await.unwrap();
    let data = fixture.postgres.log_path().parent().unwrap().join("data/pg_hba.conf");
    let hba = "host all rotating 127.0.0.1/32 scram-sha-256\nhost all all 127.0.0.1/32 trust\n\
               local all all trust\n";
    fs::write(data, hba).unwrap();
    fixture.postgres.execute("postgres", "SELECT pg_reload_conf()").await.unwrap();
    let settings = |toml: Toml| {
        toml.remove("database.url")
            .set("database.url_file", url_file.to_str().unwrap())
            .set("nats.user", "relay")
            .set("nats.password_file", password_file.to_str().unwrap())
    };
    let mut running = fixture.daemon().config(settings).admin().allow_log("").start();
    running.wait_log("relaying", DEADLINE).await;
    let pid = running.pid();

    let rotations = async |fixture: &mut Fixture| {
        for (round, signalled) in [("first", false), ("second", true)] {
            let_pass(Duration::from_millis(300)).await;
            renew(round);
            let alter = format!("ALTER ROLE rotating PASSWORD '{round}'");
            fixture.postgres.execute("postgres", &alter).await.unwrap();
            fixture.nats.own().options_mut().extra = users(round);
            fixture.nats.own().reload().await.unwrap();
            if signalled {
                running.signal(Signal::HangUp);
                let line = running.wait_log("configuration reloaded", DEADLINE).await;
                assert!(line.contains("database.url") && line.contains("nats.password"), "{line}");
            } else {
                let end = "SELECT pg_terminate_backend(pid) FROM pg_stat_activity
                           WHERE usename = 'rotating'";
                fixture.postgres.execute("postgres", end).await.unwrap();
            }
            // Events are published over the new connections to Postgres and NATS.
            let stored = fixture.read_stream().await.len() as u64;
            fixture.wait_stored(stored + 300, DEADLINE).await;
        }
    };
    let (report, ()) = fixture.under_load(steady(500, 50), rotations).await;

    assert!(report.committed > 600, "{report}");
    assert_eq!(running.pid(), pid);
    for dependency in ["postgres", "nats"] {
        let series = format!(
            "postrider_dependency_reconnects_total{{route=\"default\",dependency=\"{dependency}\"}}"
        );
        assert!(running.metric(&series).await >= 2.0, "{dependency}");
    }
}

#[tokio::test]
async fn reload_takes_up_the_log_level_and_names_what_needs_a_restart() {
    let fixture = Fixture::new().await;
    let mut running =
        fixture.daemon().admin().allow_log("take effect only after a restart").start();
    running.wait_log("relaying", DEADLINE).await;
    running.signal(Signal::HangUp);
    running.wait_log("nothing has changed that takes effect without a restart", DEADLINE).await;
    running.reload(|toml| toml.set("log.level", "debug").set("relay.batch_events", 7));
    let line = running.wait_log("configuration reloaded keys", DEADLINE).await;
    assert!(line.contains("log.level") && !line.contains("batch_events"), "{line}");
    let line = running.wait_log("take effect only after a restart", DEADLINE).await;
    assert!(line.contains("relay.batch_events") && !line.contains("log.level"), "{line}");
    running.wait_log("DEBUG postrider", DEADLINE).await;
    // The policy of retries is read at a start only, so the log has to say that these keys need a
    // restart.
    running.reload(|toml| toml.set("route.attempts", 7).set("route.max_delay", "1m"));
    let line = running.wait_log("route.attempts", DEADLINE).await;
    assert!(line.contains("only after a restart") && line.contains("route.max_delay"), "{line}");
    // The reload did not end the connection to NATS.
    let reconnects = r#"postrider_dependency_reconnects_total{route="default",dependency="nats"}"#;
    assert!(running.metric(reconnects).await < 1.0);
}

#[tokio::test]
async fn invalid_configuration_is_refused_and_the_old_one_stays() {
    let fixture = Fixture::new().await;
    let client = fixture.connect().await;
    let mut running =
        fixture.daemon().admin().allow_log("configuration not reloaded, the old one stays").start();
    running.wait_log("relaying", DEADLINE).await;
    assert!(running.metric(SUCCESSFUL).await > 0.0);
    let before = running.metric("postrider_config_last_reload_success_timestamp_seconds").await;
    assert!(before > 0.0);

    let secret = "mysql://app:canary@h/app";
    running.reload(|toml| toml.set("database.url", secret).set("relay.batch_events", 0));
    let line = running.wait_log("configuration not reloaded", DEADLINE).await;
    assert!(line.contains("ERROR") && line.contains("relay.batch_events"), "{line}");
    eventually("a second problem", DEADLINE, async || {
        running.log().contains("database.url is not a postgresql:// URL")
    })
    .await;
    assert!(!running.log().contains("canary"), "{}", running.log());
    assert!(running.metric(SUCCESSFUL).await < 1.0);
    app::emit(&client, "order.placed", None, "{}").await;
    fixture.wait_stored(1, DEADLINE).await;

    let url = fixture.database_url();
    running.reload(|toml| toml.set("database.url", url).set("relay.batch_events", 1000));
    running.wait_log("nothing has changed that takes effect without a restart", DEADLINE).await;
    assert!(running.metric(SUCCESSFUL).await > 0.0);
    assert!(
        running.metric("postrider_config_last_reload_success_timestamp_seconds").await > before
    );
}

#[tokio::test]
async fn variables_of_libpq_alone_say_where_the_database_is() {
    let fixture = Fixture::new().await;
    let (port, database) = (fixture.postgres.port().to_string(), fixture.database.clone());
    let toml = fixture.toml().remove("database.url");
    let variables = [
        ("PGHOST", "127.0.0.1"),
        ("PGPORT", port.as_str()),
        ("PGDATABASE", database.as_str()),
        ("PGUSER", "postgres"),
    ];
    let found = daemon::run_with(&toml, &["check"], &variables).await;
    let text = format!("database {database} as postgres");
    assert!(found.stdout.contains(&text), "{found:?}");
    let strict = [&variables[..], &[("PGSSLMODE", "require")]].concat();
    let found = daemon::run_with(&toml, &["check"], &strict).await;
    assert!(found.stdout.contains("server does not speak TLS"), "{found:?}");
}

/// Former defect: opening a pipe waits for its writer. The relay's loop stood still for ever, and
/// ignored SIGTERM.
#[tokio::test]
async fn a_configuration_that_became_a_pipe_is_refused_and_publishing_goes_on() {
    let fixture = Fixture::new().await;
    let mut daemon = fixture.daemon().allow_log("configuration not reloaded").start();
    daemon.wait_log("relaying", DEADLINE).await;
    let path = daemon.config_path();
    fs::remove_file(&path).unwrap();
    let made = std::process::Command::new("mkfifo").arg(&path).status().unwrap();
    assert!(made.success());
    daemon.signal(Signal::HangUp);
    let line = daemon.wait_log("it is a pipe", DEADLINE).await;
    assert!(line.contains("configuration not reloaded, the old one stays"), "{line}");
    app::insert_backlog(&fixture.connect().await, 10, 10).await;
    fixture.wait_stored(10, DEADLINE).await;
    daemon.stop().await;
}
