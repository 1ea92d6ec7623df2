//! Metrics of the configuration: whether the last reload succeeded, and the time of the last
//! success.

use prometheus_client::{metrics::gauge::Gauge, registry::Registry};

use super::{SecondsGauge, unix_seconds};

/// The gauges of the configuration.
#[derive(Debug)]
pub struct ConfigurationMetrics {
    successful: Gauge,
    success_seconds: SecondsGauge,
}

impl ConfigurationMetrics {
    pub(super) fn register(list: &mut Registry) -> Self {
        let (successful, success_seconds) = (Gauge::default(), SecondsGauge::default());
        list.register(
            "config_last_reload_successful",
            "1 when the configuration was valid at the start or the last SIGHUP",
            successful.clone(),
        );
        list.register(
            "config_last_reload_success_timestamp_seconds",
            "When the configuration was last taken up (Unix)",
            success_seconds.clone(),
        );
        let configuration = Self { successful, success_seconds };
        // The program starts only with a valid configuration, so its start is the first success.
        configuration.accepted();
        configuration
    }

    /// Notes that the configuration was valid and is taken up.
    pub fn accepted(&self) {
        self.successful.set(1);
        self.success_seconds.set(unix_seconds());
    }

    /// Notes that the configuration was invalid, and that the old one stays.
    pub fn refused(&self) {
        self.successful.set(0);
    }
}
