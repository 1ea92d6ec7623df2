//! The benchmark: throwaway servers, the real program, and tables of measures with targets.
//!
//! Ratios are formed within one run, from two variants measured in turns, because machines differ
//! and are noisy. docs/performance.md says how each measure is taken and what it came to.

mod acks;
mod aged;
mod backlog;
mod beside;
mod brokers;
mod ceiling;
mod chart;
mod daemon;
mod drain;
mod drained;
mod emit;
mod filtered;
mod goals;
mod idle;
mod latency;
mod load;
mod machine;
mod matrix;
mod measure;
mod number;
mod options;
mod output;
mod pgbench;
mod proc;
mod progress;
mod reading;
mod report;
mod resume;
mod stage;
mod stream;
mod table;
mod twin;
mod writers;

use std::{process::ExitCode, time::Instant};

use anyhow::{Context as _, Result, ensure};

use self::{
    machine::Machine,
    options::{Options, Part},
    progress::note,
    report::Report,
    stage::Stage,
};

fn main() -> ExitCode {
    // Writers block threads of their own, and the ceiling has a runtime with one thread, as the
    // program has.
    let runtime =
        tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build();
    let result = runtime.context("start threads").and_then(|runtime| runtime.block_on(bench()));
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            note(&format!("could not measure: {error:#}"));
            ExitCode::FAILURE
        }
    }
}

async fn bench() -> Result<()> {
    let options = Options::read();
    let machine = Machine::examine(&options)?;
    let mut report = Report::default();
    let mut stage = None;
    let mut unmeasured = Vec::new();
    for part in options.parts() {
        let begun = Instant::now();
        match measure(part, &mut stage, &options).await {
            Ok(measured) => report.extend(measured),
            // A part that fails does not keep the other parts from being measured.
            Err(error) => {
                note(&format!("could not measure {}: {error:#}", part.name()));
                unmeasured.push(part.name());
                stage = None;
            }
        }
        note(&format!("{} took {:.0} s", part.name(), begun.elapsed().as_secs_f64()));
        // The files are written after each part, so that an interrupted run has results too.
        output::write(&report, &machine)?;
    }
    drop(stage);
    output::print(&report, &machine, &options)?;
    for path in output::write(&report, &machine)? {
        note(&format!("written: {}", path.display()));
    }
    ensure!(unmeasured.is_empty(), "{}", unmeasured.join(", "));
    Ok(())
}

/// Measures a part on new servers, so that it inherits no files and caches of another part. A quick
/// run keeps the servers where the kind of broker is the same.
async fn measure(part: Part, stage: &mut Option<Stage>, options: &Options) -> Result<Report> {
    let kind = part.brokers();
    let kept = stage.take().filter(|stage| options.quick && stage.brokers.kind == kind);
    let stage = match kept {
        Some(kept) => stage.insert(kept),
        None => stage.insert(Stage::start(kind).await.context("start the servers")?),
    };
    stage.clear().await?;
    run(part, stage, options).await
}

async fn run(part: Part, stage: &Stage, options: &Options) -> Result<Report> {
    match part {
        Part::Drain => drain::run(stage, options).await,
        Part::Large => drain::large(stage, options).await,
        Part::Hot => drain::hot(stage, options).await,
        Part::Filtered => filtered::run(stage, options).await,
        Part::Aged => aged::run(stage, options).await,
        Part::Matrix => matrix::run(stage, options).await,
        Part::Latency => latency::run(stage, options).await,
        Part::Writers => writers::run(stage, options).await,
        Part::Shared => beside::writers(stage, options).await,
        Part::Neighbours => beside::neighbours(stage, options).await,
        Part::Emit => emit::run(stage, options).await,
        Part::Idle => idle::run(stage, options).await,
        Part::Resume => resume::run(stage, options).await,
        Part::Replicated => drain::replicated(stage, options).await,
        Part::Fsyncing => drain::fsyncing(stage, options).await,
    }
}
