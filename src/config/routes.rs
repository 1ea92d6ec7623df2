//! `[[route]]`: several routes in one file. Each becomes a configuration of its own, with one
//! `[stream]` and one `[route]`.
//!
//! Each element of the list becomes separate layers: its `name` is `relay.name`, its keys of the
//! stream belong to `[stream]`, all others to `[route]`. So a route is checked, and works, as a
//! configuration with that one route would.

use std::collections::BTreeSet;

use figment::value::{Dict, Value};

use super::{
    Config, RouteConfig, SinkKind, Unrouted, bounds,
    error::{ConfigError, Origin, Problem},
    layers::{Layer, element},
    load::OneRoute,
    name::{RELAY_NAME_BYTES_MAX, RelayName},
};
use crate::{
    delivery::OnDead,
    event::{Filter, Rules, Shard},
};

/// Maximum number of flows of one process. Each has two connections and reads all events of the
/// outbox.
pub const ROUTES_MAX: usize = 64;

/// The name of the relay that handles the events that no route takes.
pub const UNROUTED: &str = "unrouted";

/// Placeholder for the number of a shard.
pub(super) const SHARD: &str = "{shard}";

/// The keys whose values may contain the placeholder `{shard}`, each as table and key.
const NUMBERED: [(&str, &str); 3] =
    [("stream", "name"), ("stream", "subjects"), ("route", "subject")];

/// The keys of `[[route]]` that a file with a single `[route]` has in another table. Each comes as
/// the key, that other table, and the key there.
const ELSEWHERE: [(&str, &str, &str); 5] = [
    ("name", "relay", "name"),
    ("stream", "stream", "name"),
    ("subjects", "stream", "subjects"),
    ("heal", "stream", "heal"),
    ("batches", "stream", "batches"),
];

/// Divides the layers by route. Each route gets the layers that all routes share and, above the
/// file with its element of `[[route]]`, a layer with the keys of that element. Without `[[route]]`
/// there is one route, with the layers as they are.
///
/// # Errors
/// A `[[route]]` that is no list of tables, a route without a name, or more than [`ROUTES_MAX`]
/// routes.
pub(super) fn split(layers: Vec<Layer>) -> Result<Vec<Vec<Layer>>, ConfigError> {
    let mut problems = Vec::new();
    let mut common = Vec::new();
    // The layer of each route, and the index at which it is inserted among the layers that all
    // routes share.
    let mut routes: Vec<(usize, Layer)> = Vec::new();
    for mut layer in layers {
        if let Some(Value::Array(_, elements)) = layer.values.get("route").cloned() {
            layer.values.remove("route");
            for (index, value) in elements.into_iter().enumerate() {
                match route(&layer, index, value) {
                    Ok(route) => routes.push((common.len() + 1, route)),
                    Err(problem) => problems.push(problem),
                }
            }
        }
        common.push(layer);
    }
    if routes.len() > ROUTES_MAX {
        let text = format!("there are {} routes, and at most {ROUTES_MAX} can be", routes.len());
        problems.push(Problem::new(text).hint("divide them among several processes"));
    }
    if !problems.is_empty() {
        return Err(ConfigError { problems });
    }
    if routes.is_empty() {
        return Ok(vec![common]);
    }
    let of_route = |(place, route): (usize, Layer)| {
        let mut layers = common.clone();
        layers.insert(place, route);
        layers
    };
    Ok(routes.into_iter().map(of_route).collect())
}

/// The layer of one element of `[[route]]`.
fn route(file: &Layer, index: usize, value: Value) -> Result<Layer, Problem> {
    let table = element("route", index);
    let at = |key: &str| match &file.origin {
        Origin::File { path, .. } => Origin::File {
            path: path.clone(),
            line: file.lines.get(key).or_else(|| file.lines.get(&table)).copied(),
        },
        other @ (Origin::Default | Origin::Variable(_) | Origin::Flag | Origin::SecretFile(_)) => {
            other.clone()
        }
    };
    let Value::Dict(tag, keys) = value else {
        let problem = Problem::new("route is a list of tables").at(at(&table));
        return Err(problem.hint("write [[route]], with the keys of the route below it"));
    };
    let mut layer = Layer { values: Dict::new(), lines: file.lines.clone(), ..file.clone() };
    for (key, value) in keys {
        let moved = ELSEWHERE.iter().find(|(here, ..)| *here == key);
        let (section, name) = match moved {
            Some((_, section, name)) => (*section, (*name).to_owned()),
            None => ("route", key.clone()),
        };
        let here = format!("{table}.{key}");
        if let Some(line) = file.lines.get(&here) {
            layer.lines.insert(format!("{section}.{name}"), *line);
        }
        let keys = layer.values.entry(section.to_owned());
        let keys = keys.or_insert_with(|| Value::Dict(tag, Dict::new()));
        if let Value::Dict(_, keys) = keys {
            keys.insert(name, value);
        }
    }
    if !layer.contains("relay.name") {
        let problem = Problem::new("a [[route]] has no name").at(at(&table));
        return Err(problem.hint(
            "add name = \"orders\": it is the route's row in the table of positions, and stays",
        ));
    }
    Ok(layer)
}

/// The layers of each shard of a route, with the shard's number in the place of `{shard}`. A route
/// without shards is one flow, with the number 0.
pub(super) fn shards(layers: &[Layer]) -> Vec<(Vec<Layer>, Option<Shard>)> {
    let said = |layer: &Layer| Value::from(layer.values.clone()).find("route.shards")?.to_i128();
    let count = layers.iter().rev().find_map(said).unwrap_or(1);
    // A number of shards out of bounds counts as 1 here. The check of all bounds refuses it later.
    let count = u32::try_from(count).ok().filter(|count| bounds::SHARDS.contains(count));
    let count = count.unwrap_or(1);
    let shard = |index| {
        let mut layers = layers.to_vec();
        for layer in &mut layers {
            for (section, key) in NUMBERED {
                let keys = layer.values.get_mut(section);
                if let Some(Value::Dict(_, keys)) = keys
                    && let Some(value) = keys.get_mut(key)
                {
                    *value = with_number(value.clone(), index);
                }
            }
        }
        (layers, (count > 1).then_some(Shard { index, count }))
    };
    (0..count).map(shard).collect()
}

/// A text, or a list of texts, with a number in the place of `{shard}`.
fn with_number(value: Value, number: u32) -> Value {
    match value {
        Value::String(tag, text) => Value::String(tag, text.replace(SHARD, &number.to_string())),
        Value::Array(tag, items) => {
            let items = items.into_iter().map(|item| with_number(item, number));
            Value::Array(tag, items.collect())
        }
        other @ (Value::Dict(..)
        | Value::Char(..)
        | Value::Bool(..)
        | Value::Num(..)
        | Value::Empty(..)) => other,
    }
}

/// Sets the name and the filter of a route. A shard also gets a relay name with its number.
///
/// # Errors
/// When the name becomes too long, or a route has the name of a shard.
pub(super) fn numbered(mut route: OneRoute, shard: Option<Shard>) -> Result<OneRoute, ConfigError> {
    let OneRoute { config, origins } = &mut route;
    config.route.name = config.relay.name.as_str().to_owned();
    if Shard::is_name(&config.route.name) {
        let text = format!("the name {} is that of a shard", config.route.name);
        let problem = Problem::new(text).at(origins.of("relay.name")).hint(
            "choose one that does not end as .0-of-4 does: the shards of a route are called so",
        );
        return Err(ConfigError { problems: vec![problem] });
    }
    if let Some(shard) = shard {
        let name = shard.relay(&config.route.name);
        let Some(parsed) = RelayName::parse(&name) else {
            let problem = Problem::new(format!("the name of the shard {name} is too long"));
            let problem = problem.at(origins.of("relay.name")).hint(format!(
                "it may have {RELAY_NAME_BYTES_MAX} characters: give the route a shorter name"
            ));
            return Err(ConfigError { problems: vec![problem] });
        };
        config.relay.name = parsed;
    }
    config.route.filter = Filter::Rules(Rules { shard, ..config.route.rules() });
    Ok(route)
}

/// The problems of routes that do not go together, such as two with one name.
pub(super) fn problems(routes: &[OneRoute]) -> Vec<Problem> {
    let mut problems = Vec::new();
    if routes.len() > ROUTES_MAX {
        let text =
            format!("there are {} flows with all shards, at most {ROUTES_MAX}", routes.len());
        problems.push(Problem::new(text).hint("divide the routes among several processes"));
        return problems;
    }
    let is_stdout = |route: &&OneRoute| route.config.route.sink == SinkKind::Stdout;
    if let [_, second, ..] = routes.iter().filter(is_stdout).collect::<Vec<_>>().as_slice() {
        let problem = Problem::new("two flows would write to standard output");
        let problem = problem.at(second.origins.of("route.sink"));
        problems.push(problem.hint("only one route with one shard may have sink = \"stdout\""));
    }
    let mut names = BTreeSet::new();
    for OneRoute { config, origins } in routes {
        let name = config.relay.name.as_str();
        if !names.insert(name) {
            let problem = Problem::new(format!("two routes are called {name}"));
            problems.push(problem.at(origins.of("relay.name")).hint(
                "give each [[route]] a name of its own; relay.name cannot be set for all of them",
            ));
        }
        if name == UNROUTED && unrouted(routes).is_some() {
            let problem = Problem::new(format!("no route may be called {name}"));
            problems.push(
                problem
                    .at(origins.of("relay.name"))
                    .hint("Postrider uses the name for the events that no route takes"),
            );
        }
    }
    for (index, one) in routes.iter().enumerate() {
        for other in routes.iter().skip(index + 1) {
            problems.extend(find_conflict(one, other));
        }
    }
    problems
}

/// The conflict of two routes that take the same event into one stream: the stream would drop one
/// of the two messages, because they have the same id.
fn find_conflict(one: &OneRoute, other: &OneRoute) -> Option<Problem> {
    let (first, second) = (&one.config, &other.config);
    let is_stream = |config: &Config| config.route.sink == SinkKind::Nats;
    let is_shared = is_stream(first) && is_stream(second);
    if !is_shared || first.stream.name != second.stream.name {
        return None;
    }
    if first.stream.create && first.stream.subjects != second.stream.subjects {
        let (a, b) = (&first.route.name, &second.route.name);
        let text =
            format!("routes {a} and {b} would create the stream {} differently", first.stream.name);
        let problem = Problem::new(text).at(other.origins.of("stream.subjects"));
        return Some(
            problem.hint("let both have the same subjects, which capture what both publish"),
        );
    }
    // Two shards of one route take no event in common, because each key belongs to one shard.
    if first.route.name == second.route.name {
        return None;
    }
    if !first.route.rules().may_overlap(&second.route.rules()) {
        return None;
    }
    let (a, b) = (&first.route.name, &second.route.name);
    let stream = &first.stream.name;
    let problem = Problem::new(format!("routes {a} and {b} may take the same event into {stream}"))
        .at(other.origins.of("relay.name"))
        .detail("both messages would have the event's id, and the stream would keep one of them");
    Some(problem.hint(
        "give one of them another stream, or let except_types, kinds or aggregates keep them apart",
    ))
}

/// The route of the events that no other route takes. `None` when a route takes everything, or with
/// `relay.unrouted = "off"`.
pub(super) fn unrouted(routes: &[OneRoute]) -> Option<OneRoute> {
    let mut unrouted = routes.first()?.clone();
    if unrouted.config.relay.unrouted == Unrouted::Off {
        return None;
    }
    let mut rules: Vec<Rules> = Vec::new();
    for route in routes {
        let of_route = route.config.route.rules();
        if of_route.is_empty() {
            return None;
        }
        // All shards of a route have the same rules, so the rules count once.
        if !rules.contains(&of_route) {
            rules.push(of_route);
        }
    }
    unrouted.config.relay.name = RelayName::parse(UNROUTED)?;
    unrouted.config.route = RouteConfig {
        sink: SinkKind::Unrouted,
        // A dead event holds up no other event, because no consumer receives unrouted events.
        on_dead: OnDead::Skip,
        filter: Filter::NoneOf(rules),
        name: UNROUTED.to_owned(),
        ..RouteConfig::default()
    };
    Some(unrouted)
}

/// Merges the problems of several routes. A problem of all routes comes once, any other with the
/// name of its route.
pub(super) fn merged(of_routes: &[(String, Vec<Problem>)]) -> Vec<Problem> {
    let count = of_routes.len();
    let mut merged: Vec<Problem> = Vec::new();
    for (name, problems) in of_routes {
        for problem in problems {
            let is_shared = of_routes.iter().all(|(_, others)| others.contains(problem));
            let mut problem = problem.clone();
            if !is_shared && count > 1 {
                problem.primary = format!("route {name}: {}", problem.primary);
            }
            if !merged.contains(&problem) {
                merged.push(problem);
            }
        }
    }
    merged
}

/// The name of the route whose layers these are, for a message to a person.
pub(super) fn name_of(layers: &[Layer]) -> String {
    let names = layers.iter().rev().filter_map(|layer| {
        Value::from(layer.values.clone()).find("relay.name").and_then(Value::into_string)
    });
    names.into_iter().next().unwrap_or_else(|| RelayName::default().as_str().to_owned())
}
