//! Spread of a route's shards over the instances: an instance that leads more than its part yields
//! some.

use std::collections::BTreeMap;

use tracing::info;

use super::contract::Watched;
use crate::{outbox::Inspection, pg::error::QueryError, relay::report::status::Phase};

/// Yields shards when this instance leads more than its part of a route. Behind a pooler the
/// instances cannot be counted, so none is yielded.
pub(in crate::relay) async fn spread(
    inspection: &Inspection,
    flows: &[Watched],
) -> Result<(), QueryError> {
    let mut routes: BTreeMap<&str, Vec<&Watched>> = BTreeMap::new();
    for flow in flows {
        routes.entry(&flow.settings.route).or_default().push(flow);
    }
    for (route, shards) in routes.into_iter().filter(|(_, shards)| shards.len() > 1) {
        let leads = |flow: &&&Watched| flow.status.borrow().phase == Phase::Relaying;
        let led: Vec<_> = shards.iter().filter(leads).collect();
        let mut instances = 0;
        // Shards for which another instance stands by.
        let mut wanted = Vec::new();
        for flow in &led {
            let sessions = inspection.instances(&flow.settings.relay).await?;
            let relay = format!("postrider/relay/{}", flow.settings.relay);
            let ours = sessions.iter().filter(|session| session.ends_with(&relay)).count();
            instances = instances.max(ours);
            if ours > 1 {
                wanted.push(flow);
            }
        }
        let excess = excess(shards.len(), instances, led.len());
        if excess > 0 {
            info!(
                route,
                led = led.len(),
                instances,
                excess,
                "this instance leads more than its share of the shards; it releases some to others that wait for them"
            );
        }
        for flow in wanted.iter().rev().take(excess) {
            flow.settings.yielding.notify_one();
        }
    }
    Ok(())
}

/// Number of shards that an instance yields, so that each instance leads about the same number.
fn excess(shards: usize, instances: usize, led: usize) -> usize {
    led.saturating_sub(shards.div_ceil(instances.max(1)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_instance_gives_up_what_is_more_than_its_part() {
        for (shards, instances, led, expected) in [
            (4, 1, 4, 0),
            (4, 2, 4, 2),
            (4, 3, 4, 2),
            (4, 3, 2, 0),
            (4, 8, 1, 0),
            (4, 0, 4, 0),
            (5, 2, 3, 0),
        ] {
            assert_eq!(excess(shards, instances, led), expected, "{shards} {instances} {led}");
        }
    }
}
