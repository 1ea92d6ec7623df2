//! The keys in which two configurations differ, and those that a reload puts into effect.

use figment::value::Value;

use super::{Config, keys, secret::Secret};

/// The keys that a reload puts into effect; every other one needs a restart. A section followed by
/// a dot stands for all of its keys except [`EXCEPTED`].
const RELOADABLE: [&str; 3] = ["database.", "nats.", "log.level"];

/// Keys that need a restart although the other keys of their section do not. A new connection is
/// not enough for them, because other parts of the program are built with their values.
const EXCEPTED: [&str; 2] = ["database.schema", "nats.ack_timeout"];

/// Whether a reload puts the key into effect.
pub(super) fn is_reloadable(key: &str) -> bool {
    let named = |rule: &str| key == rule || (rule.ends_with('.') && key.starts_with(rule));
    RELOADABLE.iter().any(|rule| named(rule)) && !EXCEPTED.contains(&key)
}

/// The names of the keys whose values differ; never the values.
pub(super) fn changed(before: &Config, after: &Config) -> Vec<String> {
    let (old, new) = (tree(before), tree(after));
    let differs = |key: &String| {
        let is_other = old.find_ref(key) != new.find_ref(key);
        is_other || secret(before, key) != secret(after, key)
    };
    keys::all().into_iter().filter(differs).collect()
}

fn tree(config: &Config) -> Value {
    // Serializing a configuration cannot fail, because it consists of plain structs.
    Value::serialize(config).unwrap_or_else(|_| Value::from(""))
}

/// The secret behind a key. Secrets serialize as a mask, so they are compared unmasked.
fn secret<'a>(config: &'a Config, key: &str) -> Option<&'a str> {
    match key {
        "database.url" => Some(config.database.url.expose()),
        "nats.url" => Some(config.nats.url.expose()),
        "nats.password" => config.nats.password.as_ref().map(Secret::expose),
        "nats.token" => config.nats.token.as_ref().map(Secret::expose),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::secret::SecretUrl;

    #[test]
    fn secrets_are_compared_although_they_are_shown_alike() {
        let with = |url: &str| {
            let mut config = Config::default();
            config.database.url = SecretUrl::new(url.to_owned());
            config
        };
        let (before, mut after) = (with("postgresql://a:x@h/d"), with("postgresql://a:y@h/d"));
        assert_eq!(changed(&before, &after), ["database.url"]);
        assert!(changed(&before, &before.clone()).is_empty());
        after.route.attempts = 7;
        assert_eq!(changed(&before, &after), ["database.url", "route.attempts"]);
    }

    #[test]
    fn what_a_reload_takes_up_is_what_the_sample_file_says() {
        for key in ["database.url", "nats.tls_ca", "nats.token_file", "log.level"] {
            assert!(is_reloadable(key), "{key}");
        }
        for key in ["database.schema", "nats.ack_timeout", "relay.name", "admin.listen"] {
            assert!(!is_reloadable(key), "{key}");
        }
    }
}
