//! Tests of the source text: which module imports which, how comments begin, and similar rules.
//!
//! Each check is a function from files to complaints. A test also gives it a planted violation,
//! which it has to report.
#![cfg(test)]

use std::{
    collections::BTreeMap,
    fs,
    path::{Path, PathBuf},
    process::Command,
};

/// Modules, and for each the modules that it may name. An entry with a longer path allows only that
/// part of a module. A commit that adds an entry says why.
const MAY_NAME: &[(&str, &[&str])] = &[
    ("event", &[]),
    ("delivery", &["event"]),
    ("wire", &["event"]),
    ("config", &["delivery", "event", "wire"]),
    ("metrics", &[]),
    ("findings", &["delivery", "metrics"]),
    ("tasks", &[]),
    ("shutdown", &[]),
    ("systemd", &[]),
    ("clock", &["failpoint"]),
    ("failpoint", &[]),
    ("logging", &["config"]),
    ("pg", &["config", "failpoint", "metrics", "tasks"]),
    ("outbox", &["event", "delivery", "pg", "metrics"]),
    ("broker", &["event", "wire", "delivery"]),
    ("nats", &["broker", "clock", "event", "wire", "delivery", "config", "metrics", "tasks"]),
    ("stdout", &["broker", "clock", "delivery", "wire"]),
    ("unrouted", &["broker", "delivery", "wire"]),
    ("sink", &["broker", "delivery", "nats", "stdout", "unrouted", "wire"]),
    (
        "relay",
        &[
            "clock",
            "event",
            "wire",
            "delivery",
            "config",
            "pg",
            "outbox",
            "broker",
            "sink",
            "metrics",
            "findings",
            "tasks",
            "shutdown",
            "failpoint",
        ],
    ),
    (
        "operate",
        &[
            "broker",
            "config",
            "event",
            "findings",
            "nats",
            "outbox",
            "pg",
            "relay::leadership::contract",
            "relay::report::producers",
            "relay::report::status",
            "wire",
        ],
    ),
    ("admin", &["config", "findings", "metrics", "relay::report", "tasks"]),
    ("app", EVERYTHING_BUT_CLI),
    ("dev", EVERYTHING_BUT_CLI),
    ("cli", &["*"]),
];

const EVERYTHING_BUT_CLI: &[&str] = &["*", "!cli"];

/// Modules that may name both the outbox and a broker. `relay` does so through the seam, `operate`
/// compares both, and the others put the program together.
const OUTBOX_MEETS_SINK: &[&str] = &["relay", "operate", "app", "cli", "dev"];

/// Directories that may name the NATS client library: the JetStream sink, and the throwaway servers
/// and readers of `postrider dev`. Those read a stream independently of the relay.
const NAMES_NATS_CLIENT: &[&str] = &["src/nats/", "src/dev/"];

/// Modules of `cli` that query Postgres and NATS themselves, or turn errors of such queries into
/// exit codes. Every other command prints what `operate` returns.
const ASKS_ITSELF: &[&str] = &["check", "dev", "exit", "migrate", "run"];

/// Modules that a command must not name when it only prints what `operate` returns.
const ANSWERS_COME_FROM: &[&str] = &["broker", "nats", "outbox", "pg", "relay", "sink", "wire"];

/// Type names that may occur more than once in the crate, each with the reason.
const SHARED_NAMES: &[(&str, &str)] = &[
    ("Args", "clap's usage: the arguments of one command, in its file"),
    ("Command", "clap's usage: the commands below one command, in its file"),
    ("Watchdog", "one for Linux and one for other systems, of which a build has one"),
];

const MAIN_LINES_MAX: usize = 40;
const DIRECTORIES: &[&str] =
    &["src", "tests", "benches", "migrations", "config", "deploy", "docs", "examples", ".ci"];
const EXTENSIONS: &[&str] = &["rs", "sql", "toml", "md", "sh", "service", "py", "yml"];

/// A file of the project: its path from the project's root, with `/`, and its text.
#[derive(Clone)]
struct Source {
    path: String,
    text: String,
}

impl Source {
    fn planted(path: &str, text: &str) -> Self {
        Self { path: path.to_owned(), text: text.to_owned() }
    }

    fn is(&self, extension: &str) -> bool {
        Path::new(&self.path).extension().is_some_and(|found| found == extension)
    }

    fn is_rust_of_ours(&self) -> bool {
        self.path.starts_with("src/") && self.is("rs")
    }

    /// Module path of the file: `src/pg/connect.rs` is `["pg", "connect"]`. The crate's root has an
    /// empty path.
    fn module(&self) -> Vec<&str> {
        let path = self.path.trim_start_matches("src/").trim_end_matches(".rs");
        path.split('/').filter(|part| !["mod", "lib", "main"].contains(part)).collect()
    }

    /// Text of the file without comment lines, so that a link in a doc comment does not count as an
    /// import.
    fn code(&self) -> String {
        let code = |line: &&str| !line.trim_start().starts_with("//");
        self.text.lines().filter(code).collect::<Vec<_>>().join("\n")
    }
}

fn tree() -> Vec<Source> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut sources = Vec::new();
    for directory in DIRECTORIES {
        collect(root, &root.join(directory), &mut sources);
    }
    for entry in fs::read_dir(root).unwrap() {
        let path = entry.unwrap().path();
        if path.is_file() {
            read(root, &path, &mut sources);
        }
    }
    assert!(sources.len() > 50, "found only {} files", sources.len());
    sources
}

fn collect(root: &Path, directory: &Path, sources: &mut Vec<Source>) {
    for entry in fs::read_dir(directory).into_iter().flatten() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            collect(root, &path, sources);
        } else {
            read(root, &path, sources);
        }
    }
}

fn read(root: &Path, path: &Path, sources: &mut Vec<Source>) {
    let extension = path.extension().and_then(|extension| extension.to_str()).unwrap_or_default();
    if !EXTENSIONS.contains(&extension) {
        return;
    }
    let relative = path.strip_prefix(root).unwrap().to_str().unwrap().replace('\\', "/");
    sources.push(Source { path: relative, text: fs::read_to_string(path).unwrap() });
}

fn insist(complaints: &[String]) {
    assert!(complaints.is_empty(), "\n{}\n", complaints.join("\n"));
}

/// All paths below `crate::` that the code names, such as `relay::report::status::Phase`.
fn named_paths(code: &str) -> Vec<String> {
    let mut paths = Vec::new();
    for (at, found) in code.match_indices("crate::") {
        let before = code.get(..at).unwrap_or_default();
        if !before.ends_with(|letter: char| letter.is_alphanumeric() || letter == '_') {
            expand("", code.get(at + found.len()..).unwrap_or_default(), &mut paths);
        }
    }
    paths
}

/// Reads a path or a group of paths in braces into `paths`. Returns the text after it.
fn expand<'a>(prefix: &str, text: &'a str, paths: &mut Vec<String>) -> &'a str {
    let text = text.trim_start();
    if let Some(mut rest) = text.strip_prefix('{') {
        loop {
            rest = expand(prefix, rest, paths).trim_start();
            // Text such as `as name` is skipped up to the next separator.
            rest = rest.trim_start_matches(|letter| !matches!(letter, ',' | '}' | ';'));
            match rest.strip_prefix(',') {
                Some(more) => rest = more,
                None => return rest.strip_prefix('}').unwrap_or(""),
            }
        }
    }
    let end =
        text.find(|letter: char| !letter.is_alphanumeric() && letter != '_').unwrap_or(text.len());
    let (name, rest) = text.split_at(end);
    let path = if prefix.is_empty() { name.to_owned() } else { format!("{prefix}::{name}") };
    match rest.strip_prefix("::") {
        Some(rest) if !name.is_empty() => expand(&path, rest, paths),
        // A comma may follow the last path of a group.
        _ if name.is_empty() && rest.starts_with('}') => rest,
        // A path `crate::nats::*` counts as naming `nats`.
        _ => {
            let named = if name.is_empty() { prefix.to_owned() } else { path };
            if !named.is_empty() {
                paths.push(named);
            }
            rest
        }
    }
}

fn may_name(rules: &[&str], path: &str) -> bool {
    let under = |rule: &str| {
        path.strip_prefix(rule).is_some_and(|rest| rest.is_empty() || rest.starts_with("::"))
    };
    let forbidden = rules.iter().filter_map(|rule| rule.strip_prefix('!')).any(under);
    !forbidden && rules.iter().any(|rule| *rule == "*" || under(rule))
}

fn import_complaints(sources: &[Source]) -> Vec<String> {
    let mut complaints = Vec::new();
    let modules: Vec<&str> = MAY_NAME.iter().map(|(module, _)| *module).collect();
    for source in sources.iter().filter(|source| source.is_rust_of_ours()) {
        let path = &source.path;
        let [module, ..] = *source.module() else { continue };
        let Some((_, rules)) = MAY_NAME.iter().find(|(name, _)| *name == module) else {
            complaints.push(format!("{path}: `{module}` is not in MAY_NAME of tests/tidy.rs"));
            continue;
        };
        for named in named_paths(&source.code()) {
            let first = named.split("::").next().unwrap_or_default();
            let ours = first == module || !modules.contains(&first);
            if !ours && !may_name(rules, &named) {
                complaints.push(format!("{path}: `{module}` may not name `crate::{named}`"));
            }
        }
        complaints.extend(climbing_complaints(source));
    }
    complaints
}

/// Complains about commands of `cli` that do more than print. The work has to be in `operate`, so
/// that a command has only arguments, texts and exit codes.
fn rendering_complaints(sources: &[Source]) -> Vec<String> {
    let mut complaints = Vec::new();
    for source in sources.iter().filter(|source| source.is_rust_of_ours()) {
        let renders = match *source.module() {
            ["cli"] => true,
            ["cli", command, ..] => !ASKS_ITSELF.contains(&command),
            _ => false,
        };
        let named = if renders { named_paths(&source.code()) } else { Vec::new() };
        for named in named.iter().filter(|named| may_name(ANSWERS_COME_FROM, named)) {
            let path = &source.path;
            complaints
                .push(format!("{path}: names `crate::{named}`; `operate` asks, `cli` renders"));
        }
    }
    complaints
}

/// Complains about `super::` chains that reach the crate's root, because the table of allowed
/// imports does not see them.
fn climbing_complaints(source: &Source) -> Vec<String> {
    let depth = source.module().len();
    let climbs = |line: &&str| {
        // An indented line may belong to an inner module, which is one level deeper.
        let limit = if line.starts_with(' ') { depth + 1 } else { depth };
        line.contains(&"super::".repeat(limit))
    };
    let report =
        |line: &str| format!("{}: reaches the crate's root: `{}`", source.path, line.trim());
    source.code().lines().filter(climbs).map(report).collect()
}

fn size_complaints(sources: &[Source]) -> Vec<String> {
    let limit = |source: &Source| (source.path == "src/main.rs").then_some(MAIN_LINES_MAX);
    sources
        .iter()
        .filter_map(|source| Some((source, limit(source)?, source.text.lines().count())))
        .filter(|(_, limit, lines)| lines > limit)
        .map(|(source, limit, lines)| format!("{}: {lines} lines, at most {limit}", source.path))
        .collect()
}

fn opening_complaints(sources: &[Source]) -> Vec<String> {
    let opens_well = |source: &&Source| {
        let opening: Vec<&str> =
            source.text.lines().map_while(|line| line.strip_prefix("//! ")).collect();
        opening.last().is_some_and(|line| line.ends_with('.'))
    };
    sources
        .iter()
        .filter(|source| source.is("rs"))
        .filter(|source| !opens_well(source))
        .map(|source| {
            format!("{}: begin with `//!` and a sentence that ends with a full stop", source.path)
        })
        .collect()
}

/// Words that do not name the subject of a comment. No doc comment may begin with one of them.
const EMPTY_OPENINGS: &[&str] = &[
    "It", "None", "Nothing", "One", "Such", "There", "These", "They", "Those", "What", "Where",
    "Who",
];

/// Directory whose doc comments are checked for their first word.
const BEGINS_WITH_A_NOUN: &str = "src/";

fn noun_complaints(sources: &[Source]) -> Vec<String> {
    let mut complaints = Vec::new();
    let of_the_tree = |source: &&Source| source.path.starts_with(BEGINS_WITH_A_NOUN);
    for source in sources.iter().filter(|source| source.is("rs")).filter(of_the_tree) {
        let mut is_inside = false;
        for (line, number) in source.text.lines().zip(1..) {
            let line = line.trim_start();
            let comment = line.strip_prefix("///").or_else(|| line.strip_prefix("//!"));
            let first = comment.unwrap_or_default().split_whitespace().next().unwrap_or_default();
            let word = first.trim_end_matches([',', ':', '.', ';']);
            if !is_inside && EMPTY_OPENINGS.contains(&word) {
                let path = &source.path;
                complaints
                    .push(format!("{path}:{number}: begin with the subject, not with {word}"));
            }
            is_inside = comment.is_some();
        }
    }
    complaints
}

/// Names of the structs, enums and type aliases that a file defines. Associated types of a trait
/// are left out.
fn type_names(source: &Source) -> Vec<String> {
    let name = |line: &str| {
        let is_indented = line.starts_with(' ');
        let mut words = line.split_whitespace().peekable();
        let is_public = words.next_if(|word| word.starts_with("pub")).is_some();
        // `pub(in crate::pg) struct` contains a blank inside the visibility.
        let mut words = words.skip_while(|word| word.ends_with(')'));
        let kind = words.next()?;
        let is_alias = kind == "type" && (is_public || !is_indented);
        let rest = words.next().filter(|_| is_alias || kind == "struct" || kind == "enum")?;
        let name = rest.split(|letter: char| !letter.is_alphanumeric()).next()?;
        (!name.is_empty()).then(|| name.to_owned())
    };
    source.code().lines().filter_map(name).collect()
}

/// Complains about a type name that occurs more than once in the crate.
fn type_name_complaints(sources: &[Source]) -> Vec<String> {
    let mut places: BTreeMap<String, Vec<&str>> = BTreeMap::new();
    for source in sources.iter().filter(|source| source.is_rust_of_ours()) {
        for name in type_names(source) {
            places.entry(name).or_default().push(&source.path);
        }
    }
    let may_share = |name: &str| SHARED_NAMES.iter().any(|(shared, _)| *shared == name);
    let mut complaints = Vec::new();
    for (name, places) in places {
        if places.len() > 1 && !may_share(&name) {
            complaints.push(format!("{name} names {} types: {}", places.len(), places.join(", ")));
        }
    }
    complaints
}

fn sql_complaints(sources: &[Source]) -> Vec<String> {
    sources
        .iter()
        .filter(|source| source.is("sql") && !source.text.starts_with("--"))
        .map(|source| format!("{}: begin with a comment: purpose, index, locks", source.path))
        .collect()
}

/// Complains about SQL files with other characters than ASCII. A database without Unicode would
/// refuse such a statement.
fn ascii_complaints(sources: &[Source]) -> Vec<String> {
    // This file was released with such a character in a comment, and a released migration never
    // changes.
    let released = "migrations/0001_outbox.sql";
    let ours = |source: &&Source| !source.path.starts_with("examples/") && source.path != released;
    sources
        .iter()
        .filter(|source| source.is("sql") && !source.text.is_ascii())
        .filter(ours)
        .map(|source| format!("{}: write SQL in ASCII", source.path))
        .collect()
}

/// Complains about names of SQL files, in comments and on pages, that do not exist.
fn reference_complaints(sources: &[Source]) -> Vec<String> {
    let name = |path: &str| path.rsplit('/').next().unwrap_or_default().to_owned();
    let there: Vec<String> =
        sources.iter().filter(|source| source.is("sql")).map(|source| name(&source.path)).collect();
    let mut complaints = Vec::new();
    // Released migrations are left out. They never change, even when a file that they name gets
    // another name.
    let ours = |source: &&Source| {
        ["md", "sql", "rs"].iter().any(|extension| source.is(extension))
            && !source.path.starts_with("migrations/000")
    };
    for source in sources.iter().filter(ours) {
        let prose = |line: &&str| !source.is("rs") || line.trim_start().starts_with("//");
        let words = source.text.lines().filter(prose).flat_map(|line| {
            line.split(|letter: char| !letter.is_alphanumeric() && !"_./".contains(letter))
        });
        for word in words.map(|word| word.trim_end_matches('.')) {
            let file = name(word);
            let stem = file.strip_suffix(".sql");
            if stem.is_some_and(|stem| !stem.is_empty()) && !there.contains(&file) {
                complaints.push(format!("{}: there is no {file}", source.path));
            }
        }
    }
    complaints
}

fn blank_complaints(sources: &[Source]) -> Vec<String> {
    let mut complaints = Vec::new();
    for source in sources {
        for (number, line) in (1..).zip(source.text.split('\n')) {
            if line.contains('\t') {
                complaints.push(format!("{}:{number}: a tab", source.path));
            }
            if line.ends_with([' ', '\r']) {
                complaints.push(format!("{}:{number}: a blank at the end", source.path));
            }
        }
        if !source.text.is_empty() && !source.text.ends_with('\n') {
            complaints.push(format!("{}: no line break at the end", source.path));
        }
    }
    complaints
}

/// Complains about text that may occur in one file only, or in none. The complaint says why.
fn phrase_complaints(sources: &[Source]) -> Vec<String> {
    let spawn = concat!("tokio::", "spawn(");
    let client = concat!("async_nats", "::");
    let ignored = concat!("#[", "ignore");
    let unfinished = concat!("todo", "!(");
    let sleep = concat!("sleep", "(");
    let pg_sleep = concat!("pg_sleep", "(");
    let mut complaints = Vec::new();
    for source in sources.iter().filter(|source| source.is("rs")) {
        let path = source.path.as_str();
        let mut say = |reason: &str| complaints.push(format!("{path}: {reason}"));
        let code = source.code();
        if path.starts_with("src/") && path != "src/tasks.rs" && code.contains(spawn) {
            say("spawns a task; src/tasks.rs names and awaits them");
        }
        let at_home = NAMES_NATS_CLIENT.iter().any(|place| path.starts_with(place));
        if path.starts_with("src/") && !at_home && code.contains(client) {
            say("names the NATS client; src/nats/ does, behind the seam src/sink/");
        }
        let outside = ["clap", "std::env", "std::io", "ExitCode"];
        if path.starts_with("src/operate/") && outside.iter().any(|word| code.contains(word)) {
            say("prints, reads arguments or ends the program; src/cli/ does");
        }
        if code.contains(ignored) {
            say("a test that does not run guards nothing");
        }
        if code.contains(unfinished) {
            say("unfinished");
        }
        let waits = code.replace(pg_sleep, "").contains(sleep);
        if path.starts_with("tests/") && path != "tests/it/support/mod.rs" && waits {
            say("waits for a time; use `eventually`, which waits for a condition");
        }
    }
    complaints
}

#[test]
fn modules_name_only_what_the_table_allows() {
    insist(&import_complaints(&tree()));
}

#[test]
fn a_command_renders_what_operate_answers() {
    insist(&rendering_complaints(&tree()));
}

#[test]
fn the_outbox_and_the_brokers_meet_only_in_the_relay() {
    let rules_of = |module: &str| MAY_NAME.iter().find(|(name, _)| *name == module).unwrap().1;
    for (module, rules) in MAY_NAME {
        for broker in ["sink", "nats", "broker"] {
            let both = may_name(rules, "outbox") && may_name(rules, broker);
            assert!(!both || OUTBOX_MEETS_SINK.contains(module), "{module} may name both");
        }
    }
    for broker in ["broker", "nats", "sink"] {
        assert!(!may_name(rules_of("outbox"), broker));
        assert!(!may_name(rules_of(broker), "outbox"));
    }
    assert!(!may_name(rules_of("relay"), "nats"), "the relay speaks to the seam alone");
    assert!(!may_name(rules_of("delivery"), "broker"));
}

#[test]
fn main_only_starts_the_program() {
    insist(&size_complaints(&tree()));
}

#[test]
fn no_two_types_have_one_name() {
    insist(&type_name_complaints(&tree()));
}

#[test]
fn a_planted_second_type_of_a_name_is_seen() {
    let first = Source::planted("src/pg/one.rs", "pub struct Page(u8);\n");
    for second in [
        "struct Page<'a> {",
        "    pub(in crate::nats) enum Page {",
        "pub(super) struct Page;",
        "type Page = u8;",
        "pub type Page<T> = Vec<T>;",
    ] {
        let sources = [Source::planted("src/nats/two.rs", second), first.clone()];
        assert_eq!(type_name_complaints(&sources).len(), 1, "{second}");
    }
    for other in ["    type Page = u8;", "/// struct Page", "let a = Page(1);", "struct PageSize;"]
    {
        let sources = [Source::planted("src/nats/two.rs", other), first.clone()];
        insist(&type_name_complaints(&sources));
    }
    let shared = Source::planted("src/cli/one.rs", "struct Args {");
    insist(&type_name_complaints(&[shared.clone(), shared]));
}

#[test]
fn files_open_with_a_sentence_and_name_files_that_are_there() {
    let sources = tree();
    insist(&opening_complaints(&sources));
    insist(&noun_complaints(&sources));
    insist(&sql_complaints(&sources));
    insist(&ascii_complaints(&sources));
    insist(&reference_complaints(&sources));
}

/// Every mutant must still apply to the source, or it would test nothing.
#[test]
fn every_mutant_finds_what_it_changes() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mutants = root.join("tests/torture/mutants");
    let files = fs::read_dir(&mutants).unwrap().map(|entry| entry.unwrap().path());
    let is_mutant = |path: &PathBuf| path.extension().is_some_and(|found| found == "mutant");
    let mutants_found: Vec<PathBuf> = files.filter(is_mutant).collect();
    assert!(mutants_found.len() > 20, "found only {mutants_found:?}");
    for mutant in mutants_found {
        let mut plant = Command::new("perl");
        plant.arg(mutants.join("plant.pl")).arg("--check").arg(mutant).current_dir(root);
        let output = plant.output().expect("perl is part of every Debian");
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    }
}

#[test]
fn there_are_no_tabs_and_no_blanks_at_line_ends() {
    insist(&blank_complaints(&tree()));
}

#[test]
fn nothing_is_spawned_skipped_or_slept_away() {
    insist(&phrase_complaints(&tree()));
}

#[test]
fn a_planted_import_is_seen_in_every_spelling() {
    for text in [
        "use crate::nats::Publisher;",
        "use crate::{event::Event, nats};",
        "use crate::{\n    event::{Event, EventId},\n    pg::{self as database, Connection},\n    nats::{Publisher},\n};",
        "fn f() { let x = crate::nats::connect(); }",
        "pub(crate) use crate::nats::*;",
        "use super::nats::Publisher;",
    ] {
        let complaints = import_complaints(&[Source::planted("src/outbox.rs", text)]);
        assert_eq!(complaints.len(), 1, "{text}: {complaints:?}");
    }
    let climbing = Source::planted("src/outbox/fetch.rs", "use super::super::nats::Publisher;");
    assert_eq!(import_complaints(&[climbing]).len(), 1);
    let whole_relay =
        Source::planted("src/admin.rs", "use crate::relay::{report::status::Status, Relay};");
    assert_eq!(import_complaints(&[whole_relay]).len(), 1);
    let unknown = Source::planted("src/common.rs", "//! Odds and ends.\n");
    assert_eq!(import_complaints(&[unknown]).len(), 1);
}

#[test]
fn an_allowed_import_is_no_complaint() {
    for (path, text) in [
        (
            "src/outbox/fetch.rs",
            "use crate::{event::Event, outbox::Outbox, pg};\nuse super::letters;",
        ),
        ("src/outbox/fetch.rs", "/// As [`crate::nats`] does.\nfn f() {}"),
        ("src/outbox/fetch.rs", "mod tests {\n    use super::super::letters;\n}"),
        ("src/admin.rs", "use crate::relay::report::status::Status;"),
        (
            "src/admin.rs",
            "use crate::relay::report::{\n    flows::Seen,\n    status::{Status},\n};",
        ),
        ("src/dev/demo.rs", "use crate::{app, nats, outbox, relay::Relay};"),
    ] {
        insist(&import_complaints(&[Source::planted(path, text)]));
    }
    assert!(!may_name(EVERYTHING_BUT_CLI, "cli::Args"));
}

#[test]
fn planted_untidiness_is_seen() {
    let seen = |check: fn(&[Source]) -> Vec<String>, path: &str, text: &str| {
        let complaints = check(&[Source::planted(path, text)]);
        assert_eq!(complaints.len(), 1, "{path}: {complaints:?}");
    };
    seen(size_complaints, "src/main.rs", &"\n".repeat(MAIN_LINES_MAX + 1));
    seen(rendering_complaints, "src/cli/why.rs", "use crate::outbox::Inspection;");
    seen(rendering_complaints, "src/cli/dlq/list.rs", "fn f() { crate::pg::connect(); }");
    seen(opening_complaints, "src/pg/mute.rs", "use std::fs;\n");
    seen(opening_complaints, "src/pg/open.rs", "//! Has no full stop\n\nuse std::fs;\n");
    seen(noun_complaints, "src/pg/vague.rs", "//! A file.\n\n/// What it does.\nfn f() {}\n");
    seen(noun_complaints, "src/outbox/vague.rs", "//! One, as it is.\n");
    seen(sql_complaints, "src/outbox/sql/mute.sql", "SELECT 1;\n");
    seen(ascii_complaints, "src/outbox/sql/wide.sql", "-- One …\nSELECT 1;\n");
    seen(reference_complaints, "docs/page.md", "See `sql/gone.sql`.\n");
    seen(reference_complaints, "src/pg/doc.rs", "//! As gone.sql.\nlet x = y.sql();\n");
    seen(blank_complaints, "src/pg/tab.rs", "//! A tab.\n\tfn f() {}\n");
    seen(blank_complaints, "src/pg/blank.rs", "//! A blank. \n");
    seen(blank_complaints, "src/pg/end.rs", "//! No line break.");
    seen(phrase_complaints, "src/pg/spawn.rs", concat!("tokio::", "spawn(f());"));
    seen(phrase_complaints, "tests/it/lazy.rs", concat!("#[", "ignore]"));
    seen(phrase_complaints, "tests/it/lazy.rs", concat!("thread::sleep", "(a_while);"));
    seen(phrase_complaints, "src/pg/later.rs", concat!("todo", "!()"));
    seen(phrase_complaints, "src/operate/loud.rs", "use std::io::{self, Write as _};");
    seen(phrase_complaints, "src/relay/hasty.rs", concat!("use async_nats", "::Client;"));
}
