//! One line of the first table: the values of all rounds, what they are judged by, and the verdict.

use crate::goals::Goal;

/// A measure, its values and its goal.
#[derive(Debug)]
pub(crate) struct Measure {
    pub(crate) name: String,
    pub(crate) unit: &'static str,
    /// One for each round, in their order.
    pub(crate) values: Vec<f64>,
    pub(crate) goal: Option<Goal>,
}

impl Measure {
    /// A measure that is reported and not judged. `values` has one for each round.
    pub(crate) fn new(name: impl Into<String>, unit: &'static str, values: Vec<f64>) -> Self {
        Self { name: name.into(), unit, values, goal: None }
    }

    /// The same, judged.
    pub(crate) fn goal(self, goal: Goal) -> Self {
        Self { goal: Some(goal), ..self }
    }

    pub(crate) fn median(&self) -> f64 {
        median(&self.values)
    }

    /// Whether the goal is reached; `None` without one.
    pub(crate) fn verdict(&self) -> Option<bool> {
        self.goal.map(|goal| match goal {
            Goal::AtLeast(bound) => self.median() >= bound,
            Goal::AtMost(bound) => self.median() <= bound,
        })
    }
}

/// The middle value; of an even number, the lower of the two.
pub(crate) fn median(values: &[f64]) -> f64 {
    quantile(&sorted(values.to_vec()), 0.5)
}

/// The same values in rising order.
pub(crate) fn sorted(mut values: Vec<f64>) -> Vec<f64> {
    values.sort_by(f64::total_cmp);
    values
}

/// The value that `share` of the sorted values do not exceed.
pub(crate) fn quantile(sorted: &[f64], share: f64) -> f64 {
    let rank = (float(sorted.len() as u64) * share).ceil();
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "a rank")]
    let index = (rank as usize).saturating_sub(1);
    sorted.get(index).copied().unwrap_or(f64::NAN)
}

/// Each of the one divided by each of the other, round by round.
pub(crate) fn ratios(values: &[f64], by: &[f64]) -> Vec<f64> {
    values.iter().zip(by).map(|(value, by)| value / by).collect()
}

/// The last round's value, for the line of progress.
pub(crate) fn last(values: &[f64]) -> f64 {
    values.last().copied().unwrap_or(f64::NAN)
}

/// A count as a number to divide with.
pub(crate) fn float(count: u64) -> f64 {
    #[expect(clippy::cast_precision_loss, reason = "counts here are far below 2^52")]
    let float = count as f64;
    float
}
