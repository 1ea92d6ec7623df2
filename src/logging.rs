//! The log: to the standard error, as text for people or JSON for machines, never with control
//! characters from a row.

mod lines;

use std::{
    borrow::Cow,
    env, fmt,
    fs::File,
    io::{self, IsTerminal},
    os::{fd::AsFd, unix::fs::MetadataExt},
};

use tracing::{
    Event, Level, Metadata, Subscriber,
    field::{Field, Visit},
};
use tracing_subscriber::{
    EnvFilter, Registry,
    field::RecordFields,
    filter::FilterFn,
    fmt::{
        FmtContext, FormatEvent, FormatFields, MakeWriter,
        format::{self, Writer},
    },
    layer::SubscriberExt as _,
    registry::LookupSpan,
    reload::{self, Handle},
    util::SubscriberInitExt as _,
};

use self::lines::Lines;
use crate::config::{LogConfig, LogFormat};

/// The log of a daemon. Dropping it waits, for at most a second, until all lines are written.
#[derive(Debug)]
#[must_use = "what is not written yet is lost unless it is dropped at the end"]
pub struct Started {
    lines: Option<Lines>,
    levels: Levels,
}

impl Started {
    /// The handle by which the level is changed later.
    pub fn levels(&self) -> Levels {
        self.levels.clone()
    }
}

impl Drop for Started {
    fn drop(&mut self) {
        if let Some(lines) = &self.lines {
            lines.flush();
        }
    }
}

/// Changes what is logged while the program runs.
#[derive(Debug, Clone)]
pub struct Levels(Handle<EnvFilter, Registry>);

impl Levels {
    /// Sets a new `log.level`. Returns `false` when it has no effect, because `RUST_LOG` overrides
    /// it.
    pub fn set(&self, level: &str) -> bool {
        let (filter, _) = filter(level);
        // Replacing the filter of the log fails only when the log has ended.
        self.0.reload(filter).is_ok() && !is_overridden()
    }
}

/// Whether `RUST_LOG` says what is logged.
fn is_overridden() -> bool {
    env::var("RUST_LOG").is_ok_and(|text| !text.trim().is_empty())
}

/// Starts the log of a daemon. A second start has no effect.
pub fn start(config: &LogConfig) -> Started {
    let (filter, fault) = filter(&config.level);
    // A slow reader of the log must not stop the relay.
    let lines = Lines::start(io::stderr()).ok();
    let levels = match &lines {
        Some(lines) => install(config.format, filter, lines.clone()),
        None => install(config.format, filter, io::stderr),
    };
    if let Some(fault) = fault {
        tracing::warn!("RUST_LOG is ignored, log.level is used: {fault}");
    }
    Started { lines, levels }
}

/// Starts the log of a command that talks to a person: warnings, unless `RUST_LOG` says otherwise.
/// Complaints of the broker's client are left out, because the command itself reports the cause.
pub fn start_for_command() {
    let (filter, _) = filter("warn,async_nats=off");
    install(LogFormat::Text, filter, io::stderr);
}

/// The filter of `RUST_LOG`, else that of `level`, and what is wrong with `RUST_LOG`.
fn filter(level: &str) -> (EnvFilter, Option<String>) {
    let parse = |text: &str| EnvFilter::builder().parse(text);
    let configured = || parse(&directives(level)).unwrap_or_else(|_| EnvFilter::new("info"));
    match env::var("RUST_LOG").ok().filter(|text| !text.trim().is_empty()) {
        None => (configured(), None),
        Some(text) => match parse(&text) {
            Ok(filter) => (filter, None),
            Err(error) => (configured(), Some(error.to_string())),
        },
    }
}

/// The filter for a configured level. A bare level applies to this program alone; libraries log
/// from warnings on. The broker's client logs nothing, because it reports each end of a connection
/// as an error, and the module `nats` logs that itself.
fn directives(level: &str) -> String {
    if level.contains(['=', ',']) {
        level.to_owned()
    } else {
        format!("warn,async_nats=off,postrider={level}")
    }
}

/// The kind of reader that the standard error has, which decides about colours and times in the
/// log.
#[derive(Debug, Clone, Copy)]
enum StderrReader {
    /// A terminal, or a reader for which `CLICOLOR_FORCE` asks for colours.
    Terminal,
    /// A file, a pipe, or a terminal that wants no colours.
    File,
    /// journald, which adds the time to each line by itself and reads a priority at its start.
    Journal,
}

impl StderrReader {
    fn of_stderr() -> Self {
        let is_set = |name| env::var_os(name).is_some_and(|value| !value.is_empty());
        let is_dumb = env::var_os("TERM").is_some_and(|term| term == "dumb");
        let is_forced = env::var_os("CLICOLOR_FORCE").is_some_and(|value| value != "0");
        let is_colored = is_forced || (!is_dumb && io::stderr().is_terminal());
        match is_colored && !is_set("NO_COLOR") {
            _ if is_journal() => Self::Journal,
            true => Self::Terminal,
            false => Self::File,
        }
    }
}

/// Whether the standard error is the very stream that systemd names in `JOURNAL_STREAM`; a child
/// that was redirected inherits the variable too.
fn is_journal() -> bool {
    let Ok(stream) = env::var("JOURNAL_STREAM") else { return false };
    let metadata = io::stderr().as_fd().try_clone_to_owned().map(File::from);
    let metadata = metadata.and_then(|file| file.metadata());
    metadata.is_ok_and(|found| stream == format!("{}:{}", found.dev(), found.ino()))
}

fn install<W>(format: LogFormat, filter: EnvFilter, writer: W) -> Levels
where
    W: for<'a> MakeWriter<'a> + Send + Sync + 'static,
{
    let reader = StderrReader::of_stderr();
    let is_colored = matches!(reader, StderrReader::Terminal);
    let (filter, handle) = reload::Layer::new(filter);
    let log = tracing_subscriber::registry().with(filter).with(FilterFn::new(is_free_of_content));
    // The library would report a closed standard error on the standard error, and panic.
    let layer = tracing_subscriber::fmt::layer().log_internal_errors(false).with_writer(writer);
    // Installing the log fails when the process has one already, as in a test of the library.
    drop(match (format, reader) {
        (LogFormat::Json, _) => log.with(layer.json()).try_init(),
        (LogFormat::Text, StderrReader::Journal) => {
            let event = Prioritized(format::format().without_time().with_ansi(false));
            let layer = layer.with_ansi(false).fmt_fields(TextFields).event_format(event);
            log.with(layer).try_init()
        }
        (LogFormat::Text, StderrReader::Terminal | StderrReader::File) => {
            log.with(layer.with_ansi(is_colored).fmt_fields(TextFields)).try_init()
        }
    });
    Levels(handle)
}

/// The broker's client shows headers and payloads at its lowest level: that is never logged,
/// whatever the filter says.
fn is_free_of_content(metadata: &Metadata<'_>) -> bool {
    !(metadata.target().starts_with("async_nats") && *metadata.level() == Level::TRACE)
}

/// Formats a log event with the priority prefix that journald understands, so that `journalctl -p
/// warning` works.
struct Prioritized<F>(F);

impl<S, N, F> FormatEvent<S, N> for Prioritized<F>
where
    S: Subscriber + for<'a> LookupSpan<'a>,
    N: for<'a> FormatFields<'a> + 'static,
    F: FormatEvent<S, N>,
{
    fn format_event(
        &self,
        context: &FmtContext<'_, S, N>,
        mut writer: Writer<'_>,
        event: &Event<'_>,
    ) -> fmt::Result {
        let priority = match *event.metadata().level() {
            Level::ERROR => 3,
            Level::WARN => 4,
            Level::INFO => 6,
            Level::DEBUG | Level::TRACE => 7,
        };
        write!(writer, "<{priority}>")?;
        self.0.format_event(context, writer, event)
    }
}

/// Formats the fields of a log event as `message name=value`. Characters that a terminal would obey
/// are escaped.
struct TextFields;

impl<'writer> FormatFields<'writer> for TextFields {
    fn format_fields<R: RecordFields>(&self, writer: Writer<'writer>, fields: R) -> fmt::Result {
        let mut text = FieldVisitor { writer, separator: "", result: Ok(()) };
        fields.record(&mut text);
        text.result
    }
}

struct FieldVisitor<'writer> {
    writer: Writer<'writer>,
    separator: &'static str,
    result: fmt::Result,
}

impl Visit for FieldVisitor<'_> {
    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        if self.result.is_err() {
            return;
        }
        let text = format!("{value:?}");
        let text = printable(&text);
        let separator = self.separator;
        self.result = match field.name() {
            "message" => write!(self.writer, "{separator}{text}"),
            name => write!(self.writer, "{separator}{name}={text}"),
        };
        self.separator = " ";
    }
}

/// The text with every character escaped that a terminal obeys instead of showing: control
/// characters, line breaks, and those that change the direction of writing.
pub fn printable(text: &str) -> Cow<'_, str> {
    if !text.contains(is_obeyed) {
        return Cow::Borrowed(text);
    }
    let mut escaped = String::with_capacity(text.len() + 8);
    for c in text.chars() {
        if is_obeyed(c) {
            escaped.extend(c.escape_default());
        } else {
            escaped.push(c);
        }
    }
    Cow::Owned(escaped)
}

/// Whether a terminal obeys the character instead of showing it.
pub fn is_obeyed(c: char) -> bool {
    c.is_control()
        || matches!(c, '\u{61c}' | '\u{200e}' | '\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
}

#[cfg(test)]
mod tests {
    use std::sync::{Arc, Mutex};

    use super::*;

    /// A log that is kept in memory.
    #[derive(Clone, Default)]
    struct Memory(Arc<Mutex<Vec<u8>>>);

    impl io::Write for Memory {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0.lock().unwrap().write(bytes)
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    impl MakeWriter<'_> for Memory {
        type Writer = Self;

        fn make_writer(&self) -> Self {
            self.clone()
        }
    }

    #[test]
    fn line_for_journald_has_a_priority_and_nothing_that_a_row_could_forge() {
        let memory = Memory::default();
        let event = Prioritized(format::format().without_time().with_ansi(false));
        let builder = tracing_subscriber::fmt().with_ansi(false).fmt_fields(TextFields);
        let subscriber = builder.event_format(event).with_writer(memory.clone()).finish();
        tracing::subscriber::with_default(subscriber, || {
            let event_type = "evil\n<3>ERROR \u{1b}[31m";
            tracing::warn!(event_type = %event_type, text = "a\nb", count = 5, "it {}", "happens");
        });
        let log = String::from_utf8(memory.0.lock().unwrap().clone()).unwrap();
        let expected = "<4> WARN postrider::logging::tests: it happens \
                        event_type=evil\\n<3>ERROR \\u{1b}[31m text=\"a\\nb\" count=5\n";
        assert_eq!(log, expected);
    }

    #[test]
    fn what_a_terminal_would_obey_is_escaped() {
        assert_eq!(printable("plain ä 漢"), "plain ä 漢");
        assert_eq!(printable("a\u{1b}[31mb"), "a\\u{1b}[31mb");
        assert_eq!(printable("a\nWARN b\r\t"), "a\\nWARN b\\r\\t");
        assert_eq!(printable("a\u{202e}b\u{85}\u{61c}"), "a\\u{202e}b\\u{85}\\u{61c}");
    }

    #[test]
    fn a_bare_level_is_about_us_and_a_filter_is_taken_as_it_is() {
        assert_eq!(directives("debug"), "warn,async_nats=off,postrider=debug");
        assert_eq!(directives("info,postrider=trace"), "info,postrider=trace");
    }
}
