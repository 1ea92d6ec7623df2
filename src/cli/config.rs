//! `postrider config`: what the configuration is, and where each of its values comes from.

use serde_json::{Map, Value, json};

use super::{
    Globals,
    exit::{Exit, Failure},
    print_each,
};
use crate::config::{
    SinkKind,
    load::{Origins, Scope},
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

/// Prints the merged configuration, of each route.
pub(super) fn show(globals: Globals, args: &Args) -> Result<Exit, Failure> {
    let mut loaded = globals.load(Scope::Everything)?;
    // It is made of the others.
    loaded.routes.retain(|route| route.config.route.sink != SinkKind::Unrouted);
    let tree = |index: usize| {
        let route = loaded.routes.get(index)?;
        let tree = serde_json::to_value(&route.config).ok()?;
        Some((&route.origins, tree.as_object().cloned().unwrap_or_default()))
    };
    let json = |index: usize| {
        tree(index).map(|(origins, sections)| with_origins(origins, sections)).unwrap_or_default()
    };
    let text = |index: usize| {
        tree(index).map(|(origins, sections)| as_toml(origins, sections)).unwrap_or_default()
    };
    print_each(&loaded, (args.json, json, text))?;
    Ok(Exit::Done)
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

fn as_toml(origins: &Origins, sections: Map<String, Value>) -> String {
    let mut lines = Vec::new();
    for (section, keys) in sections {
        lines.push(format!("[{section}]"));
        for (name, value) in entries(keys) {
            let origin = origins.of(&format!("{section}.{name}"));
            lines.push(match (&value, origin) {
                (Value::Null, _) => format!("# {name} is not set"),
                // JSON's texts, numbers, booleans and lists are TOML's too.
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
