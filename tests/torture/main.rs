//! The torture suite: runs the real program under every fault of the list, and prints a table of
//! the results.
//!
//! `docs/torture.md` says what each fault does, how often each tier repeats it, and what a run
//! without a failure proves.
#![cfg(test)]

mod cluster;
mod crowd;
mod fault;
mod faults;
mod options;
mod runner;
mod scene;
#[expect(dead_code, reason = "the integration tests use the rest of it")]
#[path = "../it/support/mod.rs"]
mod support;
mod table;
mod witness;

use std::process::ExitCode;

fn main() -> ExitCode {
    let options = match options::read() {
        Ok(options) => options,
        Err(complaint) => {
            eprintln!("torture: {complaint}");
            return ExitCode::from(64);
        }
    };
    let all = faults::all();
    let undocumented = faults::undocumented(&all);
    if !undocumented.is_empty() {
        eprintln!("torture: docs/torture.md says otherwise: {}", undocumented.join("; "));
        return ExitCode::FAILURE;
    }
    let faults = options.chosen(all);
    if faults.is_empty() {
        return ExitCode::SUCCESS;
    }
    println!("torture: seed {}, tier {}", options.seed, options.tier.name());
    let results = runner::run(faults, &options);
    table::print(&results);
    println!("torture: repeat with SEED={}", options.seed);
    if results.iter().all(runner::Outcome::is_fine) { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}
