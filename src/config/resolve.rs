//! Verifies a loaded configuration: required keys, keys that exclude each other, and bounds.

use std::path::Path;

use tracing_subscriber::EnvFilter;

use super::{
    Config, SinkKind, bounds, duplicate_window_needed,
    error::{Origin, Problem},
    keys,
    mismatch::shortened,
    origin::{Origins, Scope},
    routes,
    value::HumanDuration,
};
use crate::{
    event::{FILTER_TEXT_BYTES_MAX, Pattern, is_filter_text},
    wire::{SubjectTemplate, captures},
};

/// Maximum bytes of a stream name; the broker refuses longer ones.
const STREAM_NAME_BYTES_MAX: usize = 255;

/// The kinds that an event can have.
const KINDS: [&str; 5] = ["domain", "integration", "command", "notification", "system"];

/// Maximum bytes of `ce-source`, which travels with every event.
const SOURCE_BYTES_MAX: usize = 256;

/// Finds all problems of a loaded configuration: missing keys, and values that break a rule.
pub(super) fn problems(
    config: &Config,
    origins: &Origins,
    (scope, file): (Scope, Option<&Path>),
) -> Vec<Problem> {
    let missing = missing(config, origins, (scope, file));
    let mut rules = RuleCheck { origins, problems: missing.into_iter().collect() };
    rules.bounds(config);
    rules.urls(config);
    rules.stream(config);
    rules.route(config);
    rules.filter(config);
    rules.login(config);
    rules.texts(config);
    rules.times(config);
    rules.problems
}

/// The problem of all missing required keys, with the lines to add.
fn missing(
    config: &Config,
    origins: &Origins,
    (scope, file): (Scope, Option<&Path>),
) -> Option<Problem> {
    let Config { database, nats, stream, .. } = config;
    let is_database_missing = database.url.is_empty() && !database.libpq.names_a_server();
    let all = [
        ("database.url", is_database_missing, r#"url = "postgresql://app@127.0.0.1:5432/app""#),
        ("nats.url", nats.url.is_empty(), r#"url = "nats://127.0.0.1:4222""#),
        ("stream.name", stream.name.is_empty(), r#"name = "EVENTS""#),
        (
            "stream.subjects",
            stream.create && stream.subjects.is_empty(),
            r#"subjects = ["events.>"]"#,
        ),
    ];
    let required = match (scope, config.route.sink) {
        (Scope::Schema, _) => 0,
        (Scope::Database, _) | (Scope::Everything, SinkKind::Stdout | SinkKind::Unrouted) => 1,
        (Scope::Everything, SinkKind::Nats) => all.len(),
    };
    let (mut keys, mut lines, mut empty) = (Vec::new(), Vec::new(), Vec::new());
    for (key, is_missing, line) in all.into_iter().take(required) {
        if !is_missing {
            continue;
        }
        let header = format!("[{}]", key.split('.').next().unwrap_or_default());
        if !lines.contains(&header) {
            lines.push(header);
        }
        lines.push(line.to_owned());
        keys.push(key);
        let origin = origins.of(key);
        if origin != Origin::Default {
            empty.push(format!("{key} is empty in {origin}"));
        }
    }
    if keys.is_empty() {
        return None;
    }
    let verb = if keys.len() == 1 { "is" } else { "are" };
    let variables: Vec<String> = keys.iter().map(|key| keys::variable(key)).collect();
    let place = file
        .map_or("a file and name it with --config".to_owned(), |file| file.display().to_string());
    let problem = Problem::new(format!("{} {verb} not set", enumerated(&keys))).hint(format!(
        "add to {place}:\n{}\nor set {}",
        lines.join("\n"),
        enumerated(&variables.iter().map(String::as_str).collect::<Vec<_>>())
    ));
    Some(match (file, empty.is_empty()) {
        (_, false) => problem.detail(empty.join("\n")),
        (None, true) => problem.detail(
            "no configuration file: there is no ./postrider.toml and no /etc/postrider/postrider.toml",
        ),
        (Some(_), true) => problem,
    })
}

struct RuleCheck<'a> {
    origins: &'a Origins,
    problems: Vec<Problem>,
}

impl RuleCheck<'_> {
    fn broken(&mut self, key: &str, problem: Problem) {
        self.problems.push(problem.at(self.origins.of(key)));
    }

    fn bounds(&mut self, config: &Config) {
        for bound in bounds::all(config) {
            if !bound.holds {
                let text = format!("{} is out of range: {}", bound.key, bound.value);
                self.broken(
                    bound.key,
                    Problem::new(text).hint(format!("it takes {}", bound.range)),
                );
            }
        }
    }

    fn urls(&mut self, config: &Config) {
        let escape = "special characters of a password are written %XX: @ %40, / %2F, ? %3F";
        let has_scheme = |url: &str, schemes: [&str; 2]| {
            schemes
                .iter()
                .any(|scheme| url.strip_prefix(scheme).is_some_and(|rest| !rest.is_empty()))
        };
        let url = &config.database.url;
        let is_pairs = |text: &str| text.contains('=') && !text.contains("://");
        let is_known = |text| is_pairs(text) || has_scheme(text, ["postgresql://", "postgres://"]);
        if !url.is_empty() && !is_known(url.expose()) {
            let problem = Problem::new("database.url is not a postgresql:// URL")
                .hint(format!("write \"postgresql://user:password@host:5432/database\"\n{escape}"));
            self.broken("database.url", problem);
        }
        let url = &config.nats.url;
        let is_nats = |url: &str| has_scheme(url, ["nats://", "tls://"]);
        if !url.is_empty() && !url.expose().split(',').all(|url| is_nats(url.trim())) {
            let problem = Problem::new("nats.url is not a nats:// or tls:// URL")
                .hint(format!("write \"nats://host:4222\", several with commas between\n{escape}"));
            self.broken("nats.url", problem);
        }
    }

    fn stream(&mut self, config: &Config) {
        let name = &config.stream.name;
        let forbidden = |c: char| c.is_whitespace() || c.is_control() || ".*>/\\".contains(c);
        if name.contains(forbidden) || name.len() > STREAM_NAME_BYTES_MAX {
            let problem = Problem::new(format!("stream.name may not be {}", shortened(name)))
                .hint("a stream's name has 1 to 255 bytes without blanks and without . * > / \\");
            self.broken("stream.name", problem);
        }
        for subject in config.stream.subjects.iter().filter(|subject| !is_subject_filter(subject)) {
            let problem = Problem::new(format!(
                "stream.subjects contains {}, which is not a subject",
                shortened(subject)
            ))
            .hint("write tokens with dots between; * stands for one token, > for the rest");
            self.broken("stream.subjects", problem);
        }
    }

    /// Verifies that the route's subject is a valid template, and that the stream captures the
    /// subjects that it makes.
    fn route(&mut self, config: &Config) {
        let subject = &config.route.subject;
        let template = match SubjectTemplate::parse(subject) {
            Ok(template) => template,
            Err(error) => {
                let text = format!("route.subject may not be {}", shortened(subject));
                self.broken("route.subject", Problem::new(text).detail(error.to_string()));
                return;
            }
        };
        let subjects = &config.stream.subjects;
        let sample = template.sample();
        let is_good = subjects.iter().all(|subject| is_subject_filter(subject));
        if is_good && !subjects.is_empty() && !subjects.iter().any(|it| captures(it, &sample)) {
            let text =
                format!("stream.subjects do not capture what route.subject {subject:?} makes");
            let problem = Problem::new(text)
                .detail(format!("{sample:?} matches none of {subjects:?}"))
                .hint(format!("add \"{}>\" to stream.subjects", literal_tokens(template.prefix())));
            self.broken("stream.subjects", problem);
        }
    }

    /// Verifies that the route's filter has only values that a row can have.
    fn filter(&mut self, config: &Config) {
        let route = &config.route;
        for (key, patterns) in
            [("route.types", &route.types), ("route.except_types", &route.except_types)]
        {
            let wrong = patterns.iter().filter(|text| Pattern::parse(text).is_none());
            for text in wrong {
                let text = format!("{key} contains {}, which is not a pattern", shortened(text));
                let hint = format!(
                    "write a type, or how types begin and one * at the end: \"order.*\"; at most \
                     {FILTER_TEXT_BYTES_MAX} bytes, no control characters and no backslash"
                );
                self.broken(key, Problem::new(text).hint(hint));
            }
        }
        let texts = [&route.types, &route.except_types, &route.aggregates].into_iter().flatten();
        if texts.into_iter().any(|text| text.contains(routes::SHARD)) {
            let text = format!("a filter may not contain {}", routes::SHARD);
            let hint = "it stands for the shard's number in the stream's name, its subjects and the \
                        subject; the hash of a key decides which shard its events belong to";
            self.broken("route.types", Problem::new(text).hint(hint));
        }
        if route.rules().takes_nothing() {
            let text = "the route takes nothing: except_types contains all types";
            self.broken(
                "route.except_types",
                Problem::new(text).hint("remove the route, or one of them"),
            );
        }
        for text in route.kinds.iter().filter(|kind| !KINDS.contains(&kind.as_str())) {
            let text = format!("route.kinds contains {}, which is not a kind", shortened(text));
            let hint = format!("the kinds are {}", KINDS.join(", "));
            self.broken("route.kinds", Problem::new(text).hint(hint));
        }
        for text in route.aggregates.iter().filter(|text| !is_filter_text(text)) {
            let text = format!(
                "route.aggregates contains {}, which is not an aggregate type",
                shortened(text)
            );
            let hint = format!(
                "write a whole aggregate type of 1 to {FILTER_TEXT_BYTES_MAX} bytes, without control \
                 characters and backslashes"
            );
            self.broken("route.aggregates", Problem::new(text).hint(hint));
        }
    }

    fn login(&mut self, config: &Config) {
        let nats = &config.nats;
        let ways = [
            ("nats.creds_file", nats.creds_file.is_some()),
            ("nats.nkey_file", nats.nkey_file.is_some()),
            ("nats.user", nats.user.is_some()),
            ("nats.token", nats.token.is_some()),
            ("the login in nats.url", nats.url.holds_login()),
        ];
        let set: Vec<&str> = ways.iter().filter(|(_, set)| *set).map(|(key, _)| *key).collect();
        if let [_, second, ..] = set.as_slice() {
            let problem = Problem::new(format!("{} exclude each other", enumerated(&set)))
                .hint("keep one of them as the login");
            let key = if *second == "the login in nats.url" { "nats.url" } else { second };
            self.broken(key, problem);
        }
        if let Err(error) = nats.servers() {
            self.broken("nats.url", Problem::new(format!("nats.url {error}")));
        }
        if nats.domain.is_some() && nats.api_prefix.is_some() {
            let problem = Problem::new("nats.domain and nats.api_prefix exclude each other")
                .hint("a domain's prefix is $JS.<domain>.API; keep nats.domain for that");
            self.broken("nats.api_prefix", problem);
        }
        for (one, one_set, other, other_set) in [
            ("nats.user", nats.user.is_some(), "nats.password", nats.password.is_some()),
            ("nats.tls_cert", nats.tls_cert.is_some(), "nats.tls_key", nats.tls_key.is_some()),
        ] {
            if one_set != other_set {
                let (present, absent) = if one_set { (one, other) } else { (other, one) };
                let problem = Problem::new(format!("{present} is set without {absent}"));
                self.broken(present, problem.hint("set both or none"));
            }
        }
    }

    fn texts(&mut self, config: &Config) {
        if config.nats.user.as_deref() == Some("") {
            self.broken("nats.user", Problem::new("nats.user is empty").hint("remove it"));
        }
        for (key, value, dots) in [
            ("nats.domain", &config.nats.domain, false),
            ("nats.api_prefix", &config.nats.api_prefix, true),
        ] {
            let Some(value) = value else { continue };
            let tokens = || value.split('.');
            let is_token = |token: &str| {
                !token.is_empty()
                    && !token.contains(['*', '>'])
                    && !token.contains(|c: char| c.is_whitespace() || c.is_control())
            };
            if !tokens().all(is_token) || (!dots && tokens().count() > 1) {
                let problem = Problem::new(format!("{key} may not be {}", shortened(value)));
                let hint = "it is part of a subject: no wildcards, no blanks, no empty token; a domain \
                            has no dots";
                self.broken(key, problem.hint(hint));
            }
        }
        let source = &config.relay.source;
        if source.is_empty() || source.len() > SOURCE_BYTES_MAX || source.contains(char::is_control)
        {
            let problem = Problem::new(format!("relay.source may not be {}", shortened(source)))
                .hint(format!("it takes 1 to {SOURCE_BYTES_MAX} bytes, such as \"/orders\""));
            self.broken("relay.source", problem);
        }
        for host in config.admin.hosts.iter().filter(|host| !is_host_name(host)) {
            let problem = Problem::new(format!(
                "admin.hosts contains {}, which is not a host name",
                shortened(host)
            ));
            self.broken(
                "admin.hosts",
                problem.hint("write names without ports: \"relay.internal\""),
            );
        }
        let level = &config.log.level;
        if !is_filter(level) {
            let problem = Problem::new(format!("log.level may not be {}", shortened(level))).hint(
                "write error, warn, info, debug or trace, or a filter such as \"info,postrider=debug\"",
            );
            self.broken("log.level", problem);
        }
    }

    fn times(&mut self, config: &Config) {
        let (ack, window) = (config.nats.ack_timeout, config.stream.duplicate_window);
        let needed = HumanDuration(duplicate_window_needed(ack.0));
        if config.stream.create && window < needed {
            let problem = Problem::new(format!(
                "stream.duplicate_window {window} is too short for nats.ack_timeout {ack}"
            ))
            .detail("the stream must still deduplicate an event that is sent again")
            .hint(format!("{needed} or more; 10m is good"));
            self.broken("stream.duplicate_window", problem);
        }
        let age = config.stream.max_age;
        if config.stream.create && age < window && !age.0.is_zero() {
            let problem = Problem::new(format!(
                "stream.max_age {age} is shorter than stream.duplicate_window {window}"
            ))
            .detail("the server keeps no message for less time than its id")
            .hint(format!("{window} or more, or 0s to keep messages for ever"));
            self.broken("stream.max_age", problem);
        }
        let (delay, longest) = (config.route.delay, config.route.max_delay);
        if delay > longest {
            let problem = Problem::new(format!(
                "route.delay {delay} is longer than route.max_delay {longest}"
            ))
            .hint("the first wait is the shortest");
            self.broken("route.delay", problem);
        }
        let (poll, idle) = (config.relay.poll_interval, config.relay.idle_interval);
        if poll > idle {
            let problem = Problem::new(format!(
                "relay.poll_interval {poll} is longer than relay.idle_interval {idle}"
            ))
            .hint("an idle relay polls less often than a busy one");
            self.broken("relay.poll_interval", problem);
        }
    }
}

/// Whether the text is a filter of the log: levels, each alone or after `target=`, with commas
/// between.
fn is_filter(text: &str) -> bool {
    const LEVELS: [&str; 6] = ["off", "error", "warn", "info", "debug", "trace"];
    let level = |directive: &str| {
        let (_, level) = directive.rsplit_once('=').unwrap_or(("", directive));
        LEVELS.contains(&level.trim())
    };
    text.split(',').all(level) && EnvFilter::builder().parse(text).is_ok()
}

/// Whether the text is a host name: letters, digits, `-` and `_`, with dots between.
fn is_host_name(text: &str) -> bool {
    let is_label = |label: &str| {
        !label.is_empty() && label.chars().all(|c| c.is_ascii_alphanumeric() || "-_".contains(c))
    };
    text.strip_suffix('.').unwrap_or(text).split('.').all(is_label)
}

fn is_subject_filter(text: &str) -> bool {
    let tokens: Vec<&str> = text.split('.').collect();
    let last = tokens.len() - 1;
    tokens.iter().enumerate().all(|(index, token)| {
        let is_plain =
            !token.is_empty() && !token.contains(|c: char| c.is_whitespace() || c.is_control());
        let wildcards = token.contains(['*', '>']);
        is_plain && (!wildcards || *token == "*" || (*token == ">" && index == last))
    })
}

/// The longest part of a subject's prefix that ends with a dot: `events.` of `events.v`.
fn literal_tokens(prefix: &str) -> &str {
    prefix.rsplit_once('.').map_or("", |(_, last)| prefix.strip_suffix(last).unwrap_or(prefix))
}

fn enumerated(keys: &[&str]) -> String {
    match keys {
        [] => String::new(),
        [one] => (*one).to_owned(),
        [first @ .., last] => format!("{} and {last}", first.join(", ")),
    }
}
