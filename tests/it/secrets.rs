//! Tests of secrets: they are read from files and variables, and no output shows them.

use postrider::dev::servers::NatsOptions;

use crate::support::{DEADLINE, Fixture, app, daemon, eventually, sandbox::Sandbox};

const STREAM: &str = "[stream]\nname = \"EVENTS\"\n";

/// Commands that load the configuration and do as much as is possible without servers.
const COMMANDS: &[&[&str]] = &[&["config", "show"], &["config", "show", "--json"], &["migrate"]];

#[test]
fn planted_secrets_show_in_no_output() {
    // Each file has the secret in a place where a person might put it, correctly or by mistake.
    let files = [
        "[database]\nurl = \"postgresql://app:canary@127.0.0.1:1/app\"\n[nats]\nurl = \"nats://me:canary@127.0.0.1:1\"\n",
        "[database]\nurl = \"postgresql://app:can@ary@127.0.0.1:1/app\"\n[nats]\nurl = \"nats://canary@127.0.0.1:1\"\n",
        "[database]\nurl = \"postgresql://app:canary?x@127.0.0.1:1/app\"\n[nats]\nurl = \"nats://127.0.0.1:1,canary\"\n",
        "[database]\nurl = \"postgresql://127.0.0.1:1/app?password=canary&user=a\"\n[nats]\nurl = \"canary\"\n",
        "[database]\nurl = \"host=127.0.0.1 password=canary\"\n[nats]\nurl = \"nats://127.0.0.1:1\"\ntoken = \"canary\"\n",
        "[database]\nurl = \"canary\"\n[nats]\nurl = \"nats://h\"\nuser = \"me\"\npassword = \"canary\"\n",
        "[database]\nurl = [\"canary\"]\n[nats]\nurl = { canary = \"canary\" }\n",
        "[database]\nurl = \"postgresql://app:canary\n[nats]\nurl = \"nats://h\"\n",
        "[database]\nurl = postgresql://app:canary@h/app\n",
        "[database]\nurl = \"postgresql://h/app\"\nurl = \"postgresql://app:canary@h/app\"\n",
        "[database]\nurl = 'postgresql://h/app' canary\n",
        "[nats]\nurl = \"nats://h\"\ncreds_file = \"\"\"-----BEGIN\ncanary\n\"\"\"\n",
        "[nats]\nurl = \"nats://h\"\npasword = \"canary\"\ntoken = true\n",
    ];
    for file in files {
        let sandbox = Sandbox::new().file("postrider.toml", &format!("{file}{STREAM}"));
        assert_silent(&sandbox.variable("RUST_LOG", "trace"), file);
    }
}

#[test]
fn planted_secrets_in_the_environment_show_in_no_output() {
    let variables = [
        ("POSTRIDER__DATABASE__URL", "postgresql://app:canary@127.0.0.1:1/app"),
        ("POSTRIDER__DATABASE__URL", "canary"),
        ("POSTRIDER__DATABASE__ULR", "canary"),
        ("POSTRIDER__NATS__PASSWORD", "canary"),
        ("POSTRIDER__NATS__TOKEN", "canary"),
        ("POSTRIDER__NATS__CREDS_FILE", "line\ncanary"),
        ("POSTRIDER_DATABASE_URL", "postgresql://app:canary@127.0.0.1:1/app"),
        ("DATABASE_URL", "mysql://app:canary@127.0.0.1:1/app"),
        ("NATS_URL", "canary@127.0.0.1:1"),
        ("NATS_PASSWORD", "canary"),
    ];
    for (name, value) in variables {
        let sandbox = Sandbox::new().file("postrider.toml", STREAM);
        assert_silent(&sandbox.variable(name, value).variable("RUST_LOG", "trace"), name);
    }
}

#[test]
fn planted_secrets_on_the_command_line_are_refused_and_not_repeated() {
    for setting in ["database.url=postgresql://a:canary@h/a", "nats.password=canary", "canary"] {
        let sandbox = Sandbox::new().file("postrider.toml", STREAM);
        let finished = sandbox.run(&["config", "show", "--set", setting]);
        assert_eq!(finished.code, Some(78), "{finished:?}");
        assert!(!format!("{finished:?}").contains("canary"), "{finished:?}");
    }
}

#[tokio::test]
async fn planted_secrets_show_in_no_log_of_a_run_even_at_the_lowest_level() {
    let extra = "authorization { user: me, password: canary-nats }".to_owned();
    let options = NatsOptions { extra, ..NatsOptions::default() };
    let fixture = Fixture::with(None, Some(options)).await;
    let url = fixture.database_url().replace("postgres@", "postgres:canary-postgres@");
    assert!(url.contains("canary"));
    let toml = fixture
        .toml()
        .set("database.url", url)
        .set("nats.user", "me")
        .set("nats.password", "canary-nats");
    let client = fixture.connect().await;
    app::emit(&client, "order.placed", Some(("order", "o-1")), r#"{"card": "canary-payload"}"#)
        .await;
    let with_header = r#"INSERT INTO "postrider".outbox (event_type, headers, payload)
        VALUES ('order.paid', '{"session": "canary-header"}', '{"card": "canary"}')"#;
    client.batch_execute(with_header).await.unwrap();
    let mut running =
        fixture.daemon().config(|_| toml.clone()).env("RUST_LOG", "trace").allow_log("").start();
    eventually("a published event", DEADLINE, async || {
        daemon::run(&toml, &["status", "--json"]).await.stdout.contains("\"stream_seq\": 2")
    })
    .await;
    running.stop().await;
    let log = running.log();
    // At this log level the NATS client would log headers and payloads.
    assert!(log.contains("DEBUG async_nats"), "{log}");
    assert_no_canary(&log);
    let commands: [&[&str]; 3] = [&["check"], &["status"], &["config", "show"]];
    for command in commands {
        assert_no_canary(&format!("{:?}", daemon::run(&toml, command).await));
    }
}

fn assert_no_canary(text: &str) {
    let found: Vec<&str> = text.lines().filter(|line| line.contains("canary")).collect();
    assert!(found.is_empty(), "{}", found.join("\n"));
}

fn assert_silent(sandbox: &Sandbox, case: &str) {
    for command in COMMANDS {
        let finished = sandbox.run(command);
        for piece in ["canary", "can@", "ary@", "=canary"] {
            assert!(!format!("{finished:?}").contains(piece), "{case}: {finished:?}");
        }
    }
}

#[test]
fn secret_files_are_searched_in_the_credentials_first_and_beside_the_file_last() {
    let config = "[database]\nurl_file = \"database-url\"\n[nats]\nurl = \"nats://h\"\npassword_file = \"sub/password\"\nuser = \"me\"\n";
    let sandbox = Sandbox::new()
        .file("etc/postrider.toml", &format!("{config}{STREAM}"))
        .file("etc/database-url", "postgresql://beside/app\n")
        .file("etc/sub/password", "canary\r\n");
    let args = ["config", "show", "--config", "etc/postrider.toml"];
    let shown = sandbox.run(&args).stdout;
    let line = "url = \"postgresql://beside/app\"  # secret file etc/database-url";
    assert!(shown.contains(line), "{shown}");
    assert!(shown.contains("password = \"***\"  # secret file etc/sub/password"), "{shown}");

    let sandbox = sandbox
        .file("credentials/database-url", "postgresql://credential/app")
        .variable("CREDENTIALS_DIRECTORY", "$DIR/credentials");
    let shown = sandbox.run(&args).stdout;
    let line = "url = \"postgresql://credential/app\"  # secret file $DIR/credentials/database-url";
    assert!(shown.contains(line), "{shown}");
    assert!(shown.contains("password = \"***\"  # secret file etc/sub/password"), "{shown}");
}

#[test]
fn file_with_a_password_that_everyone_can_read_is_warned_of() {
    let config =
        "[database]\nurl = \"postgresql://app:canary@h/app\"\n[nats]\nurl = \"nats://h\"\n";
    let sandbox = Sandbox::new().file("postrider.toml", &format!("{config}{STREAM}"));
    assert_eq!(sandbox.run(&["config", "show"]).stderr, "");
    let finished = sandbox.expose("postrider.toml").run(&["config", "show"]);
    assert_eq!(finished.code, Some(0));
    let text = "./postrider.toml contains a secret (database.url) and everyone can read it: \
                chmod 0640 ./postrider.toml, or use database.url_file";
    assert!(finished.stderr.contains(text), "{}", finished.stderr);
}

#[test]
fn secret_files_that_everyone_can_read_are_warned_of() {
    let config = "[database]\nurl_file = \"database-url\"\n[nats]\nurl = \"nats://h\"\ncreds_file = \"nats.creds\"\n";
    let sandbox = Sandbox::new()
        .file("postrider.toml", &format!("{config}{STREAM}"))
        .file("database-url", "postgresql://app:canary@h/app\n")
        .file("nats.creds", "canary\n");
    assert_eq!(sandbox.run(&["config", "show"]).stderr, "");
    let exposed = sandbox.expose("database-url").expose("nats.creds").run(&["config", "show"]);
    for (file, key) in [("database-url", "database.url_file"), ("nats.creds", "nats.creds_file")] {
        let text =
            format!("./{file}, which {key} names, contains a secret and everyone can read it");
        assert!(exposed.stderr.contains(&text), "{}", exposed.stderr);
    }
    assert!(!exposed.stderr.contains("canary"), "{}", exposed.stderr);
}

// Former defect: opening a pipe waits for its writer, so the program hung before its first log
// line.
#[test]
fn pipe_in_the_place_of_a_secret_is_refused_at_once() {
    let nats = "[nats]\nurl = \"nats://127.0.0.1:1\"\n";
    for (config, key) in [
        (format!("[database]\nurl_file = \"pipe\"\n{nats}"), "database.url_file"),
        (
            format!("[database]\nurl = \"postgresql://h/app\"\n{nats}creds_file = \"pipe\"\n"),
            "nats.creds_file",
        ),
        (
            format!(
                "[database]\nurl = \"postgresql://u@127.0.0.1:1/app?sslmode=verify-full&sslrootcert=$DIR/pipe\"\n{nats}"
            ),
            "sslrootcert",
        ),
    ] {
        let sandbox = Sandbox::new().pipe("pipe");
        let config = config.replace("$DIR", &sandbox.directory());
        let sandbox = sandbox.file("postrider.toml", &format!("{config}{STREAM}"));
        let finished = sandbox.run(&["check"]);
        let text = format!("{}{}", finished.stdout, finished.stderr);
        assert_ne!(finished.code, Some(0), "{finished:?}");
        assert!(text.contains(key) && text.contains("name a regular file"), "{finished:?}");
    }
}
