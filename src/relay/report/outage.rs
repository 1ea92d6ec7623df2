//! Outages: how long events did not flow and how many waited, for one log line at the end. No I/O,
//! no clock.

use std::time::{Duration, Instant};

use crate::findings::{Code, Finding, is_obstacle};

/// Shortest time without a flow of events that counts as an outage. A shorter interruption is not
/// logged.
const OUTAGE_MIN: Duration = Duration::from_secs(1);

/// Observes the outages of a flow: when one begins, and when events flow again.
#[derive(Debug, Default)]
pub struct Outages {
    now: Option<Outage>,
}

/// Outage: a time in which events did not flow.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Outage {
    /// When the outage began.
    since: Instant,
    /// Codes of the findings in the outage, each once, in the order in which they came.
    pub codes: Vec<Code>,
    /// Largest number of waiting events that was observed.
    pub waited_at_least: u64,
}

impl Outages {
    /// Observes the findings of now. Returns an outage that is over, and its duration.
    pub fn observe(
        &mut self,
        findings: &[Finding],
        waiting: u64,
        now: Instant,
    ) -> Option<(Outage, Duration)> {
        let mut codes = findings
            .iter()
            .filter(|finding| is_obstacle(finding) && !is_wanted(finding.code))
            .map(|finding| finding.code)
            .peekable();
        if codes.peek().is_none() {
            // An instance that starts again in an outage has not ended it.
            if findings.iter().any(|finding| is_wanted(finding.code)) {
                return None;
            }
            let outage = self.now.take()?;
            let took = now.saturating_duration_since(outage.since);
            return (took >= OUTAGE_MIN).then_some((outage, took));
        }
        let outage = self.now.get_or_insert_with(|| Outage {
            since: now,
            codes: Vec::new(),
            waited_at_least: 0,
        });
        for code in codes {
            if !outage.codes.contains(&code) {
                outage.codes.push(code);
            }
        }
        outage.waited_at_least = outage.waited_at_least.max(waiting);
        None
    }
}

/// Whether every start or stop of an instance has a finding with this code, so that it is no sign
/// of an outage.
fn is_wanted(code: Code) -> bool {
    matches!(code, Code::Starting | Code::Stopping)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::findings::Severity;

    fn finding(code: Code) -> Finding {
        let (cause, next) = (String::new(), String::new());
        Finding { code, severity: Severity::Critical, cause, next }
    }

    #[test]
    fn an_outage_ends_once_with_its_length_its_causes_and_the_most_that_waited() {
        let start = Instant::now();
        let after = |seconds| start + Duration::from_secs(seconds);
        let mut outages = Outages::default();
        assert_eq!(outages.observe(&[], 0, start), None);
        let nats = [finding(Code::NatsDown)];
        let both = [finding(Code::PostgresDown), finding(Code::NatsDown)];
        assert_eq!(outages.observe(&nats, 3, start), None);
        assert_eq!(outages.observe(&both, 40, after(10)), None);
        assert_eq!(outages.observe(&nats, 7, after(20)), None);
        assert_eq!(outages.observe(&[finding(Code::Starting)], 7, after(29)), None);
        let (outage, took) = outages.observe(&[], 7, after(30)).expect("an end");
        assert_eq!(took, Duration::from_secs(30));
        assert_eq!(outage.codes, [Code::NatsDown, Code::PostgresDown]);
        assert_eq!(outage.waited_at_least, 40);
        assert_eq!(outages.observe(&[], 7, after(31)), None);
    }

    #[test]
    fn a_start_and_a_blink_are_no_outage() {
        let start = Instant::now();
        let mut outages = Outages::default();
        assert_eq!(outages.observe(&[finding(Code::Starting)], 0, start), None);
        assert_eq!(outages.observe(&[], 0, start + Duration::from_secs(5)), None);
        assert_eq!(outages.observe(&[finding(Code::NatsDown)], 0, start), None);
        assert_eq!(outages.observe(&[], 0, start + Duration::from_millis(900)), None);
    }
}
