//! Finds unknown keys and tables, and suggests the known one that was probably meant.

use figment::value::{Dict, Value};

use super::{
    error::{Origin, Problem},
    keys::{all, defaults, variable},
    layers::Layer,
};

/// Removes unknown keys and misplaced tables from a layer, and returns their problems.
pub(super) fn take_unknown(layer: &mut Layer) -> Vec<Problem> {
    let known = defaults();
    let mut problems = Vec::new();
    let mut kept = Dict::new();
    for (section, value) in std::mem::take(&mut layer.values) {
        let names = known.get(&section).and_then(Value::as_dict);
        match (names, value) {
            (None, value) => {
                let is_in_file = matches!(layer.origin, Origin::File { .. });
                let problem = match value.as_dict() {
                    Some(_) if is_in_file => unknown_table(&section),
                    Some(keys) => {
                        let name = keys.keys().next().cloned().unwrap_or_default();
                        unknown_key(layer, &format!("{section}.{name}"))
                    }
                    None => unknown_key(layer, &section),
                };
                problems.push(problem.at(layer.origin_of(&section)));
            }
            (Some(names), Value::Dict(tag, values)) => {
                let (good, bad): (Dict, Dict) =
                    values.into_iter().partition(|(name, _)| names.contains_key(name));
                for name in bad.into_keys() {
                    let key = format!("{section}.{name}");
                    problems.push(unknown_key(layer, &key).at(layer.origin_of(&key)));
                }
                kept.insert(section, Value::Dict(tag, good));
            }
            (Some(names), _) => {
                let example = names.keys().next().cloned().unwrap_or_default();
                problems.push(
                    Problem::new(format!("{section} is a table, not a key"))
                        .at(layer.origin_of(&section))
                        .hint(format!(
                            "set its keys, such as {}",
                            spelled(layer, &format!("{section}.{example}"))
                        )),
                );
            }
        }
    }
    layer.values = kept;
    problems
}

/// The problem of an unknown key, with the one that was probably meant.
fn unknown_key(layer: &Layer, key: &str) -> Problem {
    Problem::new(format!("unknown key {}", key.escape_debug())).hint(nearest_key(layer, key))
}

/// The problem of an unknown table, with the one that was probably meant.
fn unknown_table(section: &str) -> Problem {
    Problem::new(format!("unknown table [{}]", section.escape_debug()))
        .hint(nearest_section(section))
}

fn nearest_section(section: &str) -> String {
    let sections: Vec<String> = defaults().into_keys().collect();
    match closest(section, sections.iter().map(String::as_str)) {
        Some(near) => format!("did you mean [{near}]?"),
        None => format!("the tables are [{}]", sections.join("], [")),
    }
}

fn nearest_key(layer: &Layer, key: &str) -> String {
    let (section, name) = key.rsplit_once('.').unwrap_or(("", key));
    let all = all();
    let here = format!("{section}.");
    let siblings = all.iter().filter_map(|known| known.strip_prefix(&here));
    if let Some(near) = closest(name, siblings.clone()) {
        return format!("did you mean {}?", spelled(layer, &format!("{section}.{near}")));
    }
    let names = all.iter().filter_map(|known| known.rsplit('.').next());
    if let Some(near) = closest(name, names) {
        let holds = |known: &&String| known.rsplit('.').next() == Some(near);
        let keys: Vec<String> = all.iter().filter(holds).map(|key| spelled(layer, key)).collect();
        return format!("did you mean {}?", keys.join(" or "));
    }
    let siblings: Vec<&str> = siblings.collect();
    if siblings.is_empty() {
        format!("the tables are [{}]", defaults().into_keys().collect::<Vec<_>>().join("], ["))
    } else {
        format!("the keys of [{section}] are {}", siblings.join(", "))
    }
}

/// The most similar of `known`; `None` when all are too different.
fn closest<'a>(text: &str, known: impl Iterator<Item = &'a str>) -> Option<&'a str> {
    const LIKELY: f64 = 0.8;
    known
        .map(|candidate| (strsim::jaro_winkler(text, candidate), candidate))
        .filter(|(score, _)| *score >= LIKELY)
        .max_by(|(a, _), (b, _)| a.total_cmp(b))
        .map(|(_, candidate)| candidate)
}

/// The key as the layer's source spells it.
fn spelled(layer: &Layer, key: &str) -> String {
    match layer.origin {
        Origin::Variable(_) => variable(key),
        Origin::Default | Origin::File { .. } | Origin::Flag | Origin::SecretFile(_) => {
            key.to_owned()
        }
    }
}
