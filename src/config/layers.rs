//! The layers of a configuration: files, environment variables and flags, each value with its
//! origin.

use std::{
    collections::BTreeMap,
    ffi::{OsStr, OsString},
    path::{Path, PathBuf},
};

use figment::{
    Error, Metadata, Profile, Provider,
    providers::{Format, Toml},
    value::{Dict, Empty, Map, Value},
};

use super::{
    error::{Origin, Problem},
    file::{self, CONFIG_BYTES_MAX},
    keys::{self, PREFIX},
};

/// A source of values: a whole file, one environment variable, or one flag.
#[derive(Debug, Clone)]
pub(super) struct Layer {
    pub(super) origin: Origin,
    pub(super) values: Dict,
    /// The line of every key, when the source is a file. Keys of the second `[[route]]` begin with
    /// `route[1]`.
    pub(super) lines: BTreeMap<String, usize>,
}

impl Layer {
    /// Reads a TOML file.
    pub(super) fn file(path: &Path) -> Result<Self, Problem> {
        let origin = Origin::File { path: path.to_owned(), line: None };
        let text = file::read_text(path, CONFIG_BYTES_MAX).map_err(|error| {
            Problem::new(format!("could not read {}", path.display())).detail(error)
        })?;
        let values = Toml::from_str::<Dict>(&text).map_err(|error| {
            // The error's own text quotes the line, and the line may contain a password.
            let line = error.span().map(|span| line_of(&text, span.start));
            let message = error.message().trim_end();
            Problem::new("this is not valid TOML")
                .at(Origin::File { path: path.to_owned(), line })
                .detail(message.rsplit('\n').next().unwrap_or(message))
                .hint(syntax_hint(message))
        })?;
        Ok(Self { origin, values, lines: key_lines(&text) })
    }

    /// Makes a layer of one value, parsed as the type of `key`.
    pub(super) fn value(origin: Origin, key: &str, text: &str) -> Self {
        let value = coerce(text, keys::template(key).as_ref());
        let nested = key
            .rsplit('.')
            .fold(value, |inner, part| Value::from(BTreeMap::from([(part.to_owned(), inner)])));
        Self { origin, values: nested.into_dict().unwrap_or_default(), lines: BTreeMap::new() }
    }

    /// Whether this layer sets `key`.
    pub(super) fn contains(&self, key: &str) -> bool {
        Value::from(self.values.clone()).find(key).is_some()
    }

    /// Place where this layer sets `key`.
    pub(super) fn origin_of(&self, key: &str) -> Origin {
        match &self.origin {
            Origin::File { path, .. } => {
                Origin::File { path: path.clone(), line: self.lines.get(key).copied() }
            }
            other @ (Origin::Default
            | Origin::Variable(_)
            | Origin::Flag
            | Origin::SecretFile(_)) => other.clone(),
        }
    }
}

/// A [`Layer`] as a figment provider, named by its index in the list.
pub(super) struct Numbered<'a>(pub(super) usize, pub(super) &'a Layer);

impl Provider for Numbered<'_> {
    fn metadata(&self) -> Metadata {
        Metadata::named(self.0.to_string())
    }

    fn data(&self) -> Result<Map<Profile, Dict>, Error> {
        Ok(Profile::Default.collect(self.1.values.clone()))
    }
}

/// Makes a layer of every `POSTRIDER__SECTION__KEY` variable.
pub(super) fn from_variables(variables: &[(OsString, OsString)]) -> Vec<Result<Layer, Problem>> {
    let ours = variables.iter().filter_map(|(name, value)| {
        name.to_str().and_then(|name| name.strip_prefix(PREFIX)).map(|rest| (rest, value))
    });
    let layer = |(rest, value): (&str, &OsString)| {
        let origin = Origin::Variable(format!("{PREFIX}{rest}"));
        let key = rest.to_ascii_lowercase().replace("__", ".");
        match value.to_str() {
            Some(text) => Ok(Layer::value(origin, &key, text)),
            None => Err(Problem::new(format!("{key} is not UTF-8 text")).at(origin)),
        }
    };
    ours.map(layer).collect()
}

/// Makes a layer of a `--set KEY=VALUE`.
pub(super) fn from_setting(setting: &str) -> Result<Layer, Problem> {
    let Some((key, text)) = setting.split_once('=') else {
        // The text may be the secret itself when it has no key, so it is not repeated.
        return Err(
            Problem::new("--set takes KEY=VALUE").hint("for example --set relay.batch_events=500")
        );
    };
    let key = key.trim();
    if keys::is_secret(key) {
        return Err(Problem::new(format!("{key} may not be set on the command line"))
            .detail("every user of the machine can read it there")
            .hint(format!("set {} or {key}_file", keys::variable(key))));
    }
    Ok(Layer::value(Origin::Flag, key, text))
}

/// The value of a variable; `None` when it is missing or empty.
pub(super) fn variable<'a>(variables: &'a [(OsString, OsString)], name: &str) -> Option<&'a OsStr> {
    let (_, value) = variables.iter().find(|(known, _)| known == name)?;
    (!value.is_empty()).then_some(value)
}

/// The files of `conf.d` beside `file`, in the order of their names.
pub(super) fn conf_d(file: &Path) -> Result<Vec<PathBuf>, Problem> {
    let directory = file.parent().unwrap_or(Path::new("")).join("conf.d");
    let unreadable = |error: std::io::Error| {
        Problem::new(format!("could not read {}", directory.display())).detail(error.to_string())
    };
    if !directory.is_dir() {
        return Ok(Vec::new());
    }
    let mut files = Vec::new();
    for entry in std::fs::read_dir(&directory).map_err(unreadable)? {
        let path = entry.map_err(unreadable)?.path();
        let is_hidden =
            path.file_name().is_some_and(|name| name.as_encoded_bytes().starts_with(b"."));
        if path.extension().is_some_and(|extension| extension == "toml") && !is_hidden {
            files.push(path);
        }
    }
    files.sort();
    Ok(files)
}

/// Parses `text` as the type of the key's default. A text that does not fit stays a text, so that
/// one place reports every wrong type.
fn coerce(text: &str, template: Option<&Value>) -> Value {
    match template {
        Some(Value::Num(..)) => {
            text.trim().parse::<i64>().map_or_else(|_| Value::from(text), Value::from)
        }
        Some(Value::Bool(..)) => {
            text.trim().parse::<bool>().map_or_else(|_| Value::from(text), Value::from)
        }
        Some(Value::Array(..)) => {
            let items = text.split(',').map(str::trim).filter(|item| !item.is_empty());
            Value::from(items.map(Value::from).collect::<Vec<_>>())
        }
        Some(Value::String(..) | Value::Char(..) | Value::Dict(..) | Value::Empty(..)) | None => {
            Value::from(text)
        }
    }
}

/// An empty optional value, which replaces a wrong one while the other keys are checked.
pub(super) fn nothing() -> Value {
    Value::from(Empty::None)
}

/// Remedy for an error of the TOML parser.
fn syntax_hint(message: &str) -> &'static str {
    if message.contains("duplicate key") {
        "a table and a key may stand only once: put the two together; [route] beside [[route]] belongs into \
         another file"
    } else if message.contains("string") {
        "a text begins and ends with \" on one line"
    } else {
        "texts, durations and sizes need quotes: schema = \"postrider\""
    }
}

fn line_of(text: &str, offset: usize) -> usize {
    text.bytes().take(offset).filter(|byte| *byte == b'\n').count() + 1
}

/// The line of every `key = …`, found from table headers and names before an equals sign.
///
/// The line numbers serve error texts only. Inline tables and quoted names with dots are not found,
/// so their errors have no line.
fn key_lines(text: &str) -> BTreeMap<String, usize> {
    let mut table = String::new();
    let mut lines = BTreeMap::new();
    let mut elements: BTreeMap<String, usize> = BTreeMap::new();
    for (index, line) in text.lines().enumerate() {
        let line = line.trim();
        let header = line.strip_prefix('[').and_then(|rest| rest.split(']').next());
        if let Some(name) = header {
            table = plain_key(name.trim_start_matches('['));
            if name.starts_with('[') {
                let count = elements.entry(table.clone()).or_default();
                table = element(&table, *count);
                *count += 1;
            }
            lines.entry(table.clone()).or_insert(index + 1);
        } else if let Some((name, _)) = line.split_once('=').filter(|_| !line.starts_with('#')) {
            let name = plain_key(name);
            let key = if table.is_empty() { name } else { format!("{table}.{name}") };
            lines.entry(key).or_insert(index + 1);
        }
    }
    lines
}

/// The prefix under which the map of lines has the keys of one element of a list of tables, such as
/// `route[1]`.
pub(super) fn element(table: &str, index: usize) -> String {
    format!("{table}[{index}]")
}

fn plain_key(text: &str) -> String {
    text.split('.').map(|part| part.trim().trim_matches(['"', '\''])).collect::<Vec<_>>().join(".")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_key_of_a_file_is_found_on_its_line() {
        let text = "top = 1\n[a]\n# b = 0\nb = 2\n  c.d = 3\n\n[ a.e ]\n\"f\" = 4\n";
        let lines = key_lines(text);
        let found: Vec<_> = lines.iter().map(|(key, line)| (key.as_str(), *line)).collect();
        assert_eq!(
            found,
            [("a", 2), ("a.b", 4), ("a.c.d", 5), ("a.e", 7), ("a.e.f", 8), ("top", 1)]
        );
    }

    #[test]
    fn every_table_of_a_list_has_lines_of_its_own() {
        let lines = key_lines("[[route]]\nname = 1\n[[ route ]]\nname = 2\n");
        assert_eq!((lines["route[0].name"], lines["route[1].name"]), (2, 4));
    }

    #[test]
    fn variable_becomes_what_its_key_takes() {
        let read = |key: &str, text: &str| {
            Value::from(Layer::value(Origin::Flag, key, text).values).find(key).unwrap()
        };
        assert_eq!(read("relay.batch_events", "7"), Value::from(7_i64));
        assert_eq!(read("stream.create", "true"), Value::from(true));
        assert_eq!(read("stream.create", "yes"), Value::from("yes"));
        assert_eq!(read("nats.password", "0123"), Value::from("0123"));
        assert_eq!(read("nats.password", "true"), Value::from("true"));
        assert_eq!(read("stream.subjects", "a.>, b"), Value::from(vec!["a.>", "b"]));
    }
}
