//! `postrider config`: what the configuration is, and where each of its values comes from.

use serde::{Serialize, Serializer};
use serde_json::{Map, Value, json};

use super::{
    Globals,
    exit::{Exit, Failure},
    print_routes,
};
use crate::config::{
    SinkKind,
    load::{OneRoute, Origins, Scope},
};

/// `postrider config …`
#[derive(Debug, clap::Subcommand)]
pub(super) enum Command {
    /// Print every key with its value and where that was written; secrets are masked
    Show(Args),
}

/// `postrider config show`
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// Print JSON instead of TOML
    #[arg(long)]
    json: bool,
}

/// Prints the configuration of each route, merged from files, environment and command line.
pub(super) fn show(globals: Globals, args: &Args) -> Result<Exit, Failure> {
    let mut loaded = globals.load(Scope::Everything)?;
    // The route of unrouted events is derived from the other routes, so it has no configuration to
    // show.
    loaded.routes.retain(|route| route.config.route.sink != SinkKind::Unrouted);
    let each: Vec<_> = loaded.routes.iter().map(Sections::of).collect();
    print_routes(&loaded, (args.json, &each, as_toml))?;
    Ok(Exit::Done)
}

/// The configuration of a route by section, and where each key was written.
struct Sections<'a> {
    origins: &'a Origins,
    sections: Map<String, Value>,
}

impl<'a> Sections<'a> {
    fn of(route: &'a OneRoute) -> Self {
        let tree = serde_json::to_value(&route.config).unwrap_or_default();
        let sections = if let Value::Object(sections) = tree { sections } else { Map::new() };
        Self { origins: &route.origins, sections }
    }
}

impl Serialize for Sections<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        with_origins(self.origins, self.sections.clone()).serialize(serializer)
    }
}

fn with_origins(origins: &Origins, sections: Map<String, Value>) -> Value {
    let section = |(section, keys): (String, Value)| {
        let keys = entries(keys).map(|(name, value)| {
            let origin = origins.of(&format!("{section}.{name}")).to_string();
            (name, json!({ "value": value, "origin": origin }))
        });
        let keys = keys.collect::<Map<_, _>>();
        (section, Value::Object(keys))
    };
    Value::Object(sections.into_iter().map(section).collect())
}

fn as_toml(Sections { origins, sections }: &Sections<'_>) -> String {
    let mut lines = Vec::new();
    for (section, keys) in sections.clone() {
        lines.push(format!("[{section}]"));
        for (name, value) in entries(keys) {
            let origin = origins.of(&format!("{section}.{name}"));
            lines.push(match (&value, origin) {
                (Value::Null, _) => format!("# {name} is not set"),
                // A value is printed as JSON: texts, numbers, booleans and lists of JSON are valid
                // TOML too.
                (_, origin) => format!("{name} = {value}  # {origin}"),
            });
        }
        lines.push(String::new());
    }
    lines.join("\n").trim_end().to_owned()
}

fn entries(table: Value) -> impl Iterator<Item = (String, Value)> {
    let keys = if let Value::Object(keys) = table { keys } else { Map::new() };
    keys.into_iter()
}
