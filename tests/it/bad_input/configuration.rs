//! Test B27 of `docs/bad-input.md`: bad values in the configuration file, beside the mistakes in
//! the snapshots of `config.rs`.

use std::{fmt::Write as _, fs, os::unix::fs::PermissionsExt as _};

use postrider::dev::servers::{NatsOptions, PostgresOptions};

use super::{Row, Scene};
use crate::support::{Fixture, daemon, postgres::without_two_phase_commit, sandbox::Sandbox};

const MINIMAL: &str = include_str!("../../../config/minimal.toml");

/// A password of characters that have a meaning in URLs, TOML, SQL or a shell.
const PASSWORD: &str = r#"p%41'"\$?&#@:/ ö+;"#;

fn percent_encoded(text: &str) -> String {
    let mut encoded = String::new();
    for byte in text.bytes() {
        write!(encoded, "%{byte:02X}").unwrap();
    }
    encoded
}

/// Options of a Postgres that asks this user for a password. The returned directory contains its
/// `pg_hba` file and has to outlive the server.
fn asking_for_passwords(user: &str) -> (PostgresOptions, tempfile::TempDir) {
    let directory = tempfile::tempdir().unwrap();
    fs::set_permissions(directory.path(), fs::Permissions::from_mode(0o755)).unwrap();
    let hba = directory.path().join("hba");
    let lines = format!(
        "host all {user} 127.0.0.1/32 scram-sha-256\nhost all all 127.0.0.1/32 trust\n\
         local all all trust\n"
    );
    fs::write(&hba, lines).unwrap();
    fs::set_permissions(&hba, fs::Permissions::from_mode(0o644)).unwrap();
    let mut options = without_two_phase_commit();
    options.settings.push(("hba_file".to_owned(), hba.display().to_string()));
    (options, directory)
}

#[tokio::test]
async fn b27_a_password_may_hold_any_character() {
    let (options, _directory) = asking_for_passwords("relay");
    let quoted = PASSWORD.replace('\\', "\\\\").replace('"', "\\\"");
    let extra = format!(
        "authorization {{ users: [ {{ user: everyone, password: everything }}\n\
         {{ user: relay, password: \"{quoted}\" }} ] }}\nno_auth_user: everyone\n"
    );
    let nats = NatsOptions { extra, ..NatsOptions::default() };
    let fixture = Fixture::with(Some(options), Some(nats)).await;
    let sql = PASSWORD.replace('\'', "''");
    let create = format!(
        "SET standard_conforming_strings = on;
         CREATE ROLE relay LOGIN PASSWORD '{sql}' IN ROLE postrider_relay"
    );
    fixture.postgres.execute("postgres", &create).await.unwrap();
    let login = |password: &str| format!("relay:{password}@");
    let url = |password: &str| fixture.database_url().replace("postgres@", &login(password));
    // A wrong password gets no session. Without that, the rest of the test would prove nothing.
    for wrong in ["wrong", &percent_encoded("p%41")] {
        let toml = fixture.toml().set("database.url", url(wrong));
        let finished = daemon::run(&toml, &["status"]).await;
        assert!(finished.stderr.contains("password"), "{finished:?}");
    }
    let good = url(&percent_encoded(PASSWORD));
    let mut scene = Scene::on(fixture, |daemon| {
        daemon.set("database.url", good).set("nats.user", "relay").set("nats.password", PASSWORD)
    })
    .await;
    scene.publishes(vec![Row::new()]).await;
}

/// Asserts that the smallest file with these lines appended is refused with exit code 78 and this
/// text.
fn is_refused(lines: &str, expected: &str) {
    let sandbox = Sandbox::new().file("postrider.toml", &format!("{MINIMAL}{lines}"));
    let finished = sandbox.run(&["config", "show"]);
    assert_eq!((finished.code, finished.stdout.as_str()), (Some(78), ""), "{lines}: {finished:?}");
    assert!(finished.stderr.contains(expected), "{lines}: {}", finished.stderr);
}

#[test]
fn b27_numbers_and_durations_beyond_all_reason_are_refused() {
    for value in
        ["0", "-1", "9223372036854775807", "99999999999999999999", "1e3", "nan", "0x", "\"\""]
    {
        is_refused(&format!("[relay]\nbatch_events = {value}\n"), "");
    }
    for value in
        ["0s", "-5s", "5", "5 parsecs", "1y", "99999999999999999999h", "", "s", "1.5s", "5s5"]
    {
        is_refused(&format!("[relay]\npoll_interval = \"{value}\"\n"), "poll_interval");
    }
    for value in ["0B", "-1MiB", "8", "8MB!", "99999999999GiB", "1e3B", "", "MiB"] {
        is_refused(&format!("[relay]\nbatch_bytes = \"{value}\"\n"), "batch_bytes");
    }
}

#[test]
fn b27_names_that_postgres_would_cut_or_run_are_refused() {
    let long = "s".repeat(64);
    for schema in [
        "x\"; drop table y--",
        "a.b",
        "schema.table.with.dots",
        "größe",
        "Upper",
        "a b",
        "",
        "pg_x",
        &long,
    ] {
        let lines = format!("[log]\n[database]\nurl = \"postgresql://h/d\"\nschema = '{schema}'\n");
        let rest =
            "[nats]\nurl = \"nats://h\"\n[stream]\nname = \"E\"\nsubjects = [\"events.>\"]\n";
        let sandbox = Sandbox::new().file("postrider.toml", &format!("{lines}{rest}"));
        let finished = sandbox.run(&["config", "show"]);
        assert_eq!(finished.code, Some(78), "{schema}: {finished:?}");
        assert!(finished.stderr.contains("lower-case letters"), "{schema}: {}", finished.stderr);
    }
    for name in ["a/b", "a b", "ä", "", &long] {
        is_refused(&format!("[relay]\nname = '{name}'\n"), "relay.name");
    }
}

#[test]
fn b27_a_key_that_nobody_knows_is_an_error_and_so_is_one_twice() {
    is_refused("[relay]\nbatch_size = 5\n", "batch_size");
    is_refused("[log]\nlevel = \"info\"\nlevel = \"warn\"\n", "level");
    is_refused("[log]\nlevel = \"info\"\n[log]\n", "log");
    is_refused("[log]\nlevel = \"info\u{0}\"\n", "postrider.toml");
    let sandbox =
        Sandbox::new().file("postrider.toml", MINIMAL).variable("POSTRIDER__LOG__LEVEL", "");
    assert_eq!(sandbox.run(&["config", "show"]).code, Some(78));
    // The file contains no text at all, as a faulty program might write it.
    let sandbox = Sandbox::new().file("postrider.toml", "\u{feff}\u{0}[[[");
    assert_eq!(sandbox.run(&["config", "show"]).code, Some(78));
}
