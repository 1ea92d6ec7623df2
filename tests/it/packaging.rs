//! Tests of the systemd unit that is shipped with the program: it is valid, and as restricted as
//! promised.
#![cfg(target_os = "linux")]

use std::{
    fs,
    process::{Command, Output},
};

const UNIT: &str = include_str!("../../deploy/systemd/postrider.service");
const EXPOSURE_MAX: f64 = 1.5;

/// Runs systemd-analyze on a unit. A missing systemd-analyze fails the test, because
/// `install-services.sh` installs it.
fn systemd_analyze(args: &[&str], unit: &str) -> Output {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("postrider.service");
    fs::write(&path, unit).unwrap();
    Command::new("systemd-analyze")
        .args(args)
        .arg(&path)
        .env("SYSTEMD_COLORS", "0")
        .output()
        .expect("systemd-analyze: run deploy/dev/install-services.sh systemd")
}

fn text(output: &Output) -> String {
    let both = [output.stdout.as_slice(), output.stderr.as_slice()].concat();
    String::from_utf8_lossy(&both).into_owned()
}

#[test]
fn systemd_finds_nothing_to_say_about_the_unit() {
    // systemd requires the unit's program to exist, so the path is replaced by that of the built
    // program.
    let unit = UNIT.replace("/usr/bin/postrider", env!("CARGO_BIN_EXE_postrider"));
    assert_ne!(unit, UNIT);
    let output = systemd_analyze(&["verify"], &unit);
    assert!(output.status.success(), "{}", text(&output));
    assert_eq!(text(&output), "");

    // A misspelt key is reported, which shows that the check above works.
    let output = systemd_analyze(&["verify"], &unit.replace("WatchdogSec=", "WatchdgSec="));
    assert!(text(&output).contains("WatchdgSec"), "{}", text(&output));
}

#[test]
fn the_unit_is_exposed_to_no_more_than_it_needs() {
    let output = systemd_analyze(&["security", "--offline=true", "--no-pager"], UNIT);
    let text = text(&output);
    let exposure = text
        .lines()
        .find_map(|line| line.split_once("Overall exposure level for postrider.service: "))
        .and_then(|(_, level)| level.split_whitespace().next()?.parse::<f64>().ok())
        .unwrap_or_else(|| panic!("no overall level in:\n{text}"));
    assert!(exposure <= EXPOSURE_MAX, "exposure {exposure}:\n{text}");
}

#[test]
fn the_unit_does_not_restart_what_a_restart_cannot_repair() {
    // Exit codes after which systemd must not start the program again: wrong command line, usage,
    // missing permission, bad configuration.
    assert!(UNIT.contains("\nRestartPreventExitStatus=2 64 77 78\n"));
    assert!(UNIT.contains("\nType=notify\n"));
}
