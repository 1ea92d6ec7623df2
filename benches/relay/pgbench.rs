//! Runs pgbench, whose clients send one transaction after the other without a pause.

use std::{
    fs,
    path::{Path, PathBuf},
    time::Duration,
};

use anyhow::{Context as _, Result, ensure};
use postrider::dev::servers::postgres_bin;
use tokio::process::Command;

use crate::backlog::{AGGREGATE_TYPE, EVENT_TYPE, Shape};

/// Inserts into a table as fast as possible for this time. Returns transactions per second.
pub(crate) async fn insert(
    url: &str,
    table: &str,
    shape: Shape,
    clients: u32,
    time: Duration,
) -> Result<f64> {
    let home = tempfile::tempdir()?;
    let script = home.path().join("insert.sql");
    let insert = format!(
        "\\set key random(1, {})\n\
         INSERT INTO {table} (event_type, aggregate_type, aggregate_id, payload) \
         VALUES ('{EVENT_TYPE}', '{AGGREGATE_TYPE}', (:key::integer)::text, '{}');\n",
        shape.keys,
        shape.payload()
    );
    fs::write(&script, insert)?;
    let script = script.to_str().context("a path in Unicode")?;
    run(url, clients, time, &["-f", script]).await
}

/// Creates and fills the tables of pgbench's built-in scripts.
pub(crate) async fn initialise(url: &str, scale: u32) -> Result<()> {
    output(&["-i", "-q", "-s", &scale.to_string(), url]).await.map(drop)
}

/// Runs the built-in script that updates accounts. Returns transactions per second.
pub(crate) async fn simple_update(url: &str, clients: u32, time: Duration) -> Result<f64> {
    run(url, clients, time, &["-N"]).await
}

async fn run(url: &str, clients: u32, time: Duration, script: &[&str]) -> Result<f64> {
    let (clients, seconds) = (clients.to_string(), time.as_secs().max(1).to_string());
    let mut arguments = vec!["-n", "-M", "prepared", "-j", "2", "-c", &clients, "-T", &seconds];
    arguments.extend(script);
    arguments.push(url);
    let text = output(&arguments).await?;
    let line = text.lines().find_map(|line| line.strip_prefix("tps = "));
    let number = line.and_then(|line| line.split(' ').next()).context("pgbench prints no tps")?;
    Ok(number.parse()?)
}

async fn output(arguments: &[&str]) -> Result<String> {
    let output = Command::new(program()?)
        .args(arguments)
        .kill_on_drop(true)
        .output()
        .await
        .context("run pgbench")?;
    let errors = String::from_utf8_lossy(&output.stderr);
    ensure!(output.status.success(), "pgbench: {errors}");
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}

fn program() -> Result<PathBuf> {
    let beside = postgres_bin()?.join("pgbench");
    Ok(if beside.is_file() { beside } else { Path::new("pgbench").to_owned() })
}
