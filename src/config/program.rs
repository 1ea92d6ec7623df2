//! The sections about the program itself: shutdown, HTTP listener and log.

use std::time::Duration;

use serde::{Deserialize, Deserializer, Serialize};

use super::value::{HumanDuration, Listen, parse_text};

/// `[shutdown]`: how the program stops.
#[derive(Debug, Clone, Deserialize, Serialize)]
#[serde(default, deny_unknown_fields)]
pub struct ShutdownConfig {
    /// How long a stopping relay may take for its last poll, the acks of what is in flight, and the
    /// last settlement. Default `30s`; keep it below what systemd or Kubernetes waits before it
    /// kills. See [`super::bounds::GRACE`].
    pub grace: HumanDuration,
}

impl Default for ShutdownConfig {
    fn default() -> Self {
        Self { grace: HumanDuration(Duration::from_secs(30)) }
    }
}

/// `[admin]`: the HTTP listener for health and metrics.
#[derive(Debug, Clone, Deserialize, Serialize)]
#[serde(default, deny_unknown_fields)]
pub struct AdminConfig {
    /// An address, or `off`. Port 0 lets the kernel choose. Default `127.0.0.1:8085`; the listener
    /// has no login, so only a trusted network should reach it.
    pub listen: Listen,
    /// Further host names that are answered, such as the name of a Kubernetes Service. Loopback
    /// names and the listening addresses are always answered. Default none.
    pub hosts: Vec<String>,
}

impl Default for AdminConfig {
    fn default() -> Self {
        Self { listen: Listen::Address(([127, 0, 0, 1], 8085).into()), hosts: Vec::new() }
    }
}

/// `[log]`: what is logged, and how.
#[derive(Debug, Clone, Deserialize, Serialize)]
#[serde(default, deny_unknown_fields)]
pub struct LogConfig {
    /// A level or a filter such as `info,postrider=debug`. `RUST_LOG` overrides it. Default `info`.
    pub level: String,
    /// Text for people or JSON for machines. Default `text`.
    pub format: LogFormat,
}

impl Default for LogConfig {
    fn default() -> Self {
        Self { level: "info".to_owned(), format: LogFormat::Text }
    }
}

/// The shape of a log line.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum LogFormat {
    /// Text: one line for a person.
    Text,
    /// JSON: one object a line.
    Json,
}

impl<'de> Deserialize<'de> for LogFormat {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        parse_text(deserializer, "\"text\" or \"json\"", |text| match text {
            "text" => Some(Self::Text),
            "json" => Some(Self::Json),
            _ => None,
        })
    }
}
