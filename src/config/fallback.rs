//! Environment variables that other programs use too, such as `NATS_URL`. They count only for keys
//! that our own configuration does not set.

use std::ffi::OsString;

use super::{
    error::Origin,
    layers::{Layer, variable},
};

/// Variables that stand for keys, in groups. When one key of a group is set in our configuration,
/// the whole group is ignored, so that a token of the shell never mixes with the user of the file.
const GROUPS: [Group; 4] = [
    Group { variables: &[("DATABASE_URL", "database.url")], silenced_by: &["database.url_file"] },
    Group { variables: &[("NATS_URL", "nats.url")], silenced_by: &["nats.url_file"] },
    Group {
        variables: &[
            ("NATS_CREDS", "nats.creds_file"),
            ("NATS_NKEY", "nats.nkey_file"),
            ("NATS_USER", "nats.user"),
            ("NATS_PASSWORD", "nats.password"),
            ("NATS_TOKEN", "nats.token"),
        ],
        silenced_by: &["nats.password_file", "nats.token_file"],
    },
    Group {
        variables: &[
            ("NATS_CA", "nats.tls_ca"),
            ("NATS_CERT", "nats.tls_cert"),
            ("NATS_KEY", "nats.tls_key"),
        ],
        silenced_by: &[],
    },
];

struct Group {
    variables: &'static [(&'static str, &'static str)],
    silenced_by: &'static [&'static str],
}

/// A layer for each variable whose group is not set in `layers`.
pub(super) fn layers(layers: &[Layer], environment: &[(OsString, OsString)]) -> Vec<Layer> {
    let mut found = Vec::new();
    for Group { variables, silenced_by } in GROUPS {
        let keys = variables.iter().map(|(_, key)| key).chain(silenced_by);
        if keys.into_iter().any(|key| layers.iter().any(|layer| layer.contains(key))) {
            continue;
        }
        for (name, key) in variables {
            if let Some(text) = variable(environment, name).and_then(|value| value.to_str()) {
                found.push(Layer::value(Origin::Variable((*name).to_owned()), key, text));
            }
        }
    }
    found
}
