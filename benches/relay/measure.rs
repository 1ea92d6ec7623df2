//! One line of the table: the values of all rounds, what they are judged by, and the verdict.

/// A measure, its values and its target.
#[derive(Debug)]
pub(crate) struct Measure {
    pub(crate) name: String,
    pub(crate) unit: &'static str,
    values: Vec<f64>,
    pub(crate) target: Option<Target>,
}

/// What the median has to reach.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Target {
    AtLeast(f64),
    AtMost(f64),
}

impl Measure {
    /// A measure that is told and not judged. `values` has one for each round.
    pub(crate) fn new(name: impl Into<String>, unit: &'static str, values: Vec<f64>) -> Self {
        let mut values = values;
        values.sort_by(f64::total_cmp);
        Self { name: name.into(), unit, values, target: None }
    }

    pub(crate) fn at_least(self, bound: f64) -> Self {
        Self { target: Some(Target::AtLeast(bound)), ..self }
    }

    pub(crate) fn at_most(self, bound: f64) -> Self {
        Self { target: Some(Target::AtMost(bound)), ..self }
    }

    /// The middle value; of an even number, the lower of the two.
    pub(crate) fn median(&self) -> f64 {
        quantile(&self.values, 0.5)
    }

    pub(crate) fn min(&self) -> f64 {
        self.values.first().copied().unwrap_or(f64::NAN)
    }

    pub(crate) fn max(&self) -> f64 {
        self.values.last().copied().unwrap_or(f64::NAN)
    }

    /// The values in rising order.
    pub(crate) fn values(&self) -> &[f64] {
        &self.values
    }

    /// Whether the target is reached; `None` without one.
    pub(crate) fn verdict(&self) -> Option<bool> {
        self.target.map(|target| match target {
            Target::AtLeast(bound) => self.median() >= bound,
            Target::AtMost(bound) => self.median() <= bound,
        })
    }
}

/// The value that `share` of the sorted values do not exceed.
pub(crate) fn quantile(sorted: &[f64], share: f64) -> f64 {
    let rank = (float(sorted.len() as u64) * share).ceil();
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "a rank")]
    let index = (rank as usize).saturating_sub(1);
    sorted.get(index).copied().unwrap_or(f64::NAN)
}

/// A count as a number to divide with.
pub(crate) fn float(count: u64) -> f64 {
    #[expect(clippy::cast_precision_loss, reason = "counts here are far below 2^52")]
    let float = count as f64;
    float
}
