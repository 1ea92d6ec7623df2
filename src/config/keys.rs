//! The names of all keys, their types, and the secret ones.

use figment::value::{Dict, Value};

use super::Config;

/// The prefix of our environment variables. The second underscore excludes the variables of
/// Kubernetes, which injects `POSTRIDER_PORT` for a Service called postrider.
pub(super) const PREFIX: &str = "POSTRIDER__";

/// Keys whose value is never shown.
const SECRETS: [&str; 4] = ["database.url", "nats.url", "nats.password", "nats.token"];

/// Whether the value of `key` is never shown.
pub(super) fn is_secret(key: &str) -> bool {
    SECRETS.contains(&key)
}

/// The environment variable of `key`.
pub(super) fn variable(key: &str) -> String {
    format!("{PREFIX}{}", key.to_ascii_uppercase().replace('.', "__"))
}

/// The default of `key` as a figment value, which has the type of the key.
pub(super) fn template(key: &str) -> Option<Value> {
    Value::from(defaults()).find(key)
}

/// All sections and keys with their defaults, as a tree.
pub(super) fn defaults() -> Dict {
    // Serializing the default configuration cannot fail, because it consists of plain structs.
    Value::serialize(Config::default()).ok().and_then(Value::into_dict).unwrap_or_default()
}

/// Every key as `section.name`.
pub(super) fn all() -> Vec<String> {
    let sections = defaults().into_iter().filter_map(|(section, keys)| {
        keys.into_dict().map(|keys| {
            keys.into_keys().map(move |name| format!("{section}.{name}")).collect::<Vec<_>>()
        })
    });
    sections.flatten().collect()
}
