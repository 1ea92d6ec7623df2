//! Line of the first table: the values of all rounds, their goal, and the verdict.

use crate::goals::Goal;

/// A measure, its values and its goal.
#[derive(Debug)]
pub(crate) struct Measure {
    pub(crate) name: String,
    pub(crate) unit: &'static str,
    /// Value of each round, in the order of the rounds.
    pub(crate) values: Vec<f64>,
    pub(crate) goal: Option<Goal>,
}

impl Measure {
    /// Makes a measure that is reported and not judged. `values` has one value per round.
    pub(crate) fn new(name: impl Into<String>, unit: &'static str, values: Vec<f64>) -> Self {
        Self { name: name.into(), unit, values, goal: None }
    }

    /// Adds the goal by which the measure is judged.
    pub(crate) fn goal(self, goal: Goal) -> Self {
        Self { goal: Some(goal), ..self }
    }

    pub(crate) fn median(&self) -> f64 {
        median(&self.values)
    }

    /// Whether the median reaches the goal. `None` when the measure has no goal.
    pub(crate) fn verdict(&self) -> Option<bool> {
        self.goal.map(|goal| match goal {
            Goal::AtLeast(bound) => self.median() >= bound,
            Goal::AtMost(bound) => self.median() <= bound,
        })
    }
}

/// Middle value. Of an even number of values it is the lower of the two middle ones.
pub(crate) fn median(values: &[f64]) -> f64 {
    quantile(&sorted(values.to_vec()), 0.5)
}

/// Sorts the values in rising order.
pub(crate) fn sorted(mut values: Vec<f64>) -> Vec<f64> {
    values.sort_by(f64::total_cmp);
    values
}

/// Smallest value that at least `share` of the values do not exceed. `sorted` is in rising order,
/// and `share` is from 0 to 1.
pub(crate) fn quantile(sorted: &[f64], share: f64) -> f64 {
    let rank = (float(sorted.len() as u64) * share).ceil();
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "a rank")]
    let index = (rank as usize).saturating_sub(1);
    sorted.get(index).copied().unwrap_or(f64::NAN)
}

/// Divides each value by the value of the same round in `by`.
pub(crate) fn ratios(values: &[f64], by: &[f64]) -> Vec<f64> {
    values.iter().zip(by).map(|(value, by)| value / by).collect()
}

/// Value of the last round, for the line that reports progress.
pub(crate) fn last(values: &[f64]) -> f64 {
    values.last().copied().unwrap_or(f64::NAN)
}

/// Converts a count to a floating-point number.
pub(crate) fn float(count: u64) -> f64 {
    #[expect(clippy::cast_precision_loss, reason = "counts here are far below 2^52")]
    let float = count as f64;
    float
}
