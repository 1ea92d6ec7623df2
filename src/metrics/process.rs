//! The customary `process_*` metrics, read from `/proc/self` at each scrape. Systems without
//! `/proc` have none.

use std::{
    fmt,
    fs::{read_dir, read_to_string},
};

use prometheus_client::{
    collector::Collector,
    encoding::{DescriptorEncoder, EncodeMetric},
    metrics::{counter::ConstCounter, gauge::ConstGauge},
};

/// Clock ticks a second in `/proc`: part of the kernel's interface, the same on every machine.
const TICKS_PER_SECOND: f64 = 100.0;

#[derive(Debug)]
pub(super) struct Process;

impl Collector for Process {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> Result<(), fmt::Error> {
        let Some(sample) = Sample::take() else { return Ok(()) };
        let cpu = ConstCounter::new(sample.cpu_seconds);
        let help = "Processor time used by this process";
        cpu.encode(encoder.encode_descriptor(
            "process_cpu_seconds",
            help,
            None,
            cpu.metric_type(),
        )?)?;
        let gauges = [
            ("process_resident_memory_bytes", "Memory that is resident", sample.resident_bytes),
            ("process_open_fds", "File descriptors that are open", sample.open_fds),
            ("process_max_fds", "File descriptors that may be open", sample.max_fds),
            ("process_start_time_seconds", "When the process started (Unix)", sample.start_seconds),
        ];
        for (name, help, value) in gauges {
            let gauge = ConstGauge::new(value);
            gauge.encode(encoder.encode_descriptor(name, help, None, gauge.metric_type())?)?;
        }
        Ok(())
    }
}

struct Sample {
    cpu_seconds: f64,
    resident_bytes: f64,
    open_fds: f64,
    max_fds: f64,
    start_seconds: f64,
}

impl Sample {
    fn take() -> Option<Self> {
        let stat = read_to_string("/proc/self/stat").ok()?;
        // The name in parentheses may contain blanks. Field 3 comes after it.
        let fields: Vec<&str> = stat.rsplit_once(')')?.1.split_whitespace().collect();
        let ticks = |field: usize| fields.get(field - 3)?.parse::<f64>().ok();
        let status = read_to_string("/proc/self/status").ok()?;
        let limits = read_to_string("/proc/self/limits").ok()?;
        let boot = read_to_string("/proc/stat").ok()?;
        Some(Self {
            cpu_seconds: (ticks(14)? + ticks(15)?) / TICKS_PER_SECOND,
            resident_bytes: number_after(&status, "VmRSS:")? * 1024.0,
            open_fds: f64::from(u32::try_from(read_dir("/proc/self/fd").ok()?.count()).ok()?),
            max_fds: number_after(&limits, "Max open files").unwrap_or(f64::INFINITY),
            start_seconds: number_after(&boot, "btime")? + ticks(22)? / TICKS_PER_SECOND,
        })
    }
}

fn number_after(text: &str, label: &str) -> Option<f64> {
    let rest = text.lines().find_map(|line| line.strip_prefix(label))?;
    rest.split_whitespace().next()?.parse().ok()
}
