//! The thread between the program and the reader of its log, so that a slow reader delays nothing.

use std::{
    io::{self, Write},
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering::Relaxed},
        mpsc::{Receiver, SyncSender, sync_channel},
    },
    thread,
    time::{Duration, Instant},
};

use tracing_subscriber::fmt::MakeWriter;

/// Lines that may wait for the reader, at most. Further lines are counted and dropped.
const LINES_MAX: usize = 1024;

/// Longest time that the end of the program waits for the reader.
const FLUSH_TIMEOUT: Duration = Duration::from_secs(1);

/// Queue of lines for the writer; sending never waits.
#[derive(Debug, Clone)]
pub(super) struct Lines {
    queue: SyncSender<LogEntry>,
    dropped: Arc<AtomicU64>,
}

enum LogEntry {
    Line(Vec<u8>),
    /// A request to answer once everything before it is written.
    Flush(SyncSender<()>),
}

impl Lines {
    /// Starts the writer.
    ///
    /// # Errors
    /// When the system has no thread to give.
    pub(super) fn start(output: impl Write + Send + 'static) -> io::Result<Self> {
        let (queue, entries) = sync_channel(LINES_MAX);
        let dropped = Arc::new(AtomicU64::new(0));
        let counted = Arc::clone(&dropped);
        let thread = thread::Builder::new().name("log".to_owned());
        thread.spawn(move || write_all(&entries, output, &counted))?;
        Ok(Self { queue, dropped })
    }

    /// Waits until everything is written, for at most a second.
    pub(super) fn flush(&self) {
        let deadline = Instant::now() + FLUSH_TIMEOUT;
        let (done, written) = sync_channel(1);
        while self.queue.try_send(LogEntry::Flush(done.clone())).is_err() {
            if Instant::now() > deadline {
                return;
            }
            thread::sleep(Duration::from_millis(10));
        }
        // At the deadline the program ends without the lines that are left.
        let left = deadline.saturating_duration_since(Instant::now());
        written.recv_timeout(left).unwrap_or_default();
    }
}

/// Writes each entry. A failed write is ignored, because there is no other place to report it.
fn write_all(entries: &Receiver<LogEntry>, mut output: impl Write, dropped: &AtomicU64) {
    while let Ok(entry) = entries.recv() {
        match entry {
            LogEntry::Line(line) => drop(output.write_all(&line)),
            LogEntry::Flush(done) => drop(done.send(())),
        }
        let lines = dropped.swap(0, Relaxed);
        if lines > 0 {
            drop(writeln!(output, "{lines} lines of the log dropped: nobody read it in time"));
        }
    }
}

impl Write for Lines {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        if self.queue.try_send(LogEntry::Line(bytes.to_vec())).is_err() {
            self.dropped.fetch_add(1, Relaxed);
        }
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl MakeWriter<'_> for Lines {
    type Writer = Self;

    fn make_writer(&self) -> Self {
        self.clone()
    }
}

#[cfg(test)]
mod tests {
    use std::io::{BufRead as _, BufReader, PipeWriter, pipe};

    use super::*;

    fn say(lines: &Lines, count: usize) {
        for number in 0..count {
            lines.make_writer().write_all(format!("line {number}\n").as_bytes()).unwrap();
        }
    }

    #[test]
    fn lines_arrive_in_order_before_a_flush_returns() {
        let (reader, writer) = pipe().unwrap();
        let lines = Lines::start(writer).unwrap();
        say(&lines, 100);
        lines.flush();
        let got: Vec<String> =
            BufReader::new(reader).lines().take(100).map(Result::unwrap).collect();
        let wanted: Vec<String> = (0..100).map(|number| format!("line {number}")).collect();
        assert_eq!(got, wanted);
    }

    /// Regression: a reader of the log that stopped reading stopped the relay too, because the
    /// relay's own task wrote the log.
    #[test]
    fn a_reader_that_stops_delays_nobody_and_is_told_what_it_missed() {
        let (reader, writer): (_, PipeWriter) = pipe().unwrap();
        let lines = Lines::start(writer).unwrap();
        let began = Instant::now();
        say(&lines, 100_000);
        lines.flush();
        assert!(began.elapsed() < FLUSH_TIMEOUT * 5, "{:?}", began.elapsed());
        drop(lines);
        let missed = BufReader::new(reader).lines().map(Result::unwrap);
        assert!(missed.filter(|line| line.contains("lines of the log dropped")).count() > 0);
    }

    #[test]
    fn a_reader_that_is_gone_delays_nobody() {
        let (reader, writer) = pipe().unwrap();
        drop(reader);
        let lines = Lines::start(writer).unwrap();
        say(&lines, 10_000);
        lines.flush();
    }
}
