//! The benchmark: throwaway servers, the real program, and one table of measures with targets.
//!
//! Ratios are formed within one run, from two variants measured in turns, because machines differ
//! and are noisy. docs/benchmarks.md says how each measure is taken and what it came to.

mod acks;
mod ceiling;
mod daemon;
mod drain;
mod idle;
mod latency;
mod load;
mod machine;
mod measure;
mod options;
mod proc;
mod resume;
mod stage;
mod stream;
mod table;
mod writers;

use std::process::ExitCode;

use anyhow::{Context as _, Result};

use self::{
    machine::Machine,
    measure::Measure,
    options::{Options, Part},
    stage::Stage,
};

fn main() -> ExitCode {
    // As the program itself does it, so that the ceiling is measured on the same footing.
    let runtime =
        tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build();
    let result = runtime.context("start threads").and_then(|runtime| runtime.block_on(bench()));
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            table::note(&format!("could not measure: {error:#}"));
            ExitCode::FAILURE
        }
    }
}

async fn bench() -> Result<()> {
    let options = Options::read();
    let machine = Machine::look()?;
    let mut measures = Vec::new();
    for part in options.parts() {
        // New servers for each part, so that none inherits the files and caches of another.
        let stage = Stage::start().await.context("start the servers")?;
        let name = part.name();
        measures.extend(run(part, &stage, &options).await.with_context(|| name)?);
    }
    if options.json { table::json(&machine, &measures) } else { table::text(&machine, &measures) }
}

async fn run(part: Part, stage: &Stage, options: &Options) -> Result<Vec<Measure>> {
    match part {
        Part::Drain => drain::run(stage, options).await,
        Part::Latency => latency::run(stage, options).await,
        Part::Writers => writers::run(stage, options).await,
        Part::Idle => idle::run(stage, options).await,
        Part::Resume => resume::run(stage, options).await,
    }
}
