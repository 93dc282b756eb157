//! What many samples say.

use serde::Serialize;

/// The middle of samples and how far they lie apart.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub(crate) struct Spread {
    pub(crate) median: f64,
    /// A quarter of the samples is not above it.
    pub(crate) lower: f64,
    /// A quarter of the samples is not below it.
    pub(crate) upper: f64,
    pub(crate) smallest: f64,
    pub(crate) largest: f64,
    pub(crate) samples: usize,
}

impl Spread {
    /// `None` without samples.
    pub(crate) fn of(samples: &[f64]) -> Option<Self> {
        Some(Self {
            median: quantile(samples, 0.5)?,
            lower: quantile(samples, 0.25)?,
            upper: quantile(samples, 0.75)?,
            smallest: quantile(samples, 0.0)?,
            largest: quantile(samples, 1.0)?,
            samples: samples.len(),
        })
    }

    /// The ratio of two series, round by round: what slows a whole round down, such as
    /// somebody else's work on the machine, cancels out.
    pub(crate) fn of_ratio(samples: &[f64], reference: &[f64]) -> Option<Self> {
        let ratios: Vec<f64> = samples
            .iter()
            .zip(reference)
            .map(|(sample, reference)| sample / reference)
            .collect();
        Self::of(&ratios)
    }
}

/// The value below which this share of the samples lies, interpolated between neighbours;
/// `None` without samples.
#[expect(
    clippy::cast_precision_loss,
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "an index into a vector: not negative, and far below 2^52"
)]
pub(crate) fn quantile(samples: &[f64], share: f64) -> Option<f64> {
    let mut sorted = samples.to_vec();
    sorted.sort_by(f64::total_cmp);
    let last = sorted.len().checked_sub(1)?;
    let position = last as f64 * share.clamp(0.0, 1.0);
    let below = sorted[position.floor() as usize];
    let above = sorted[position.ceil() as usize];
    Some(below + (above - below) * position.fract())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_median_of_an_even_number_lies_between_the_middle_two() {
        let spread = Spread::of(&[4.0, 1.0, 3.0, 2.0]).unwrap();
        assert_eq!((spread.smallest, spread.largest), (1.0, 4.0));
        assert_eq!(spread.median, 2.5);
        assert_eq!((spread.lower, spread.upper), (1.75, 3.25));
        assert_eq!(Spread::of(&[]), None);
    }

    #[test]
    fn a_slow_round_does_not_change_the_ratio() {
        let ratio = Spread::of_ratio(&[20.0, 2.0, 20.0], &[10.0, 1.0, 10.0]).unwrap();
        assert_eq!(
            (ratio.median, ratio.smallest, ratio.largest),
            (2.0, 2.0, 2.0)
        );
    }
}
