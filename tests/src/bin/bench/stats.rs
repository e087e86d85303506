//! Medians with confidence intervals. Pure.

use serde::Serialize;

/// A median of several rounds, with the interval that holds the true one at 95 % at least.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub(crate) struct Estimate {
    pub(crate) median: f64,
    pub(crate) low: f64,
    pub(crate) high: f64,
    /// How many rounds it rests on.
    pub(crate) rounds: usize,
    /// What the interval really covers: below six rounds even the extremes hold the true median in fewer than 95 of
    /// 100 cases.
    pub(crate) confidence: f64,
}

/// The median, with a distribution-free interval: two order statistics, as close to the middle as 95 % allows. It
/// supposes nothing of the shape, and latencies have none that one could suppose. None without values.
pub(crate) fn estimate(values: &[f64]) -> Option<Estimate> {
    let mut sorted: Vec<f64> = values.iter().copied().filter(|value| value.is_finite()).collect();
    sorted.sort_by(f64::total_cmp);
    let rounds = sorted.len();
    let median = percentile_of_sorted(&sorted, 0.5)?;
    let mut best = (0, coverage(rounds, 0));
    for cut in 1..rounds.div_ceil(2) {
        let covered = coverage(rounds, cut);
        if covered < 0.95 {
            break;
        }
        best = (cut, covered);
    }
    let (cut, confidence) = best;
    Some(Estimate { median, low: *sorted.get(cut)?, high: *sorted.get(rounds - 1 - cut)?, rounds, confidence })
}

/// The chance that the true median lies between the values number `cut` from below and from above, counted from 0:
/// the number of values below it is binomial with one half.
fn coverage(rounds: usize, cut: usize) -> f64 {
    let mut term = 0.5_f64.powi(i32::try_from(rounds).unwrap_or(i32::MAX));
    let mut tail = 0.0;
    for below in 0..=cut {
        tail += term;
        term *= (rounds - below) as f64 / (below + 1) as f64;
    }
    (1.0 - 2.0 * tail).max(0.0)
}

/// Linear between the two nearest values.
pub(crate) fn percentile(values: &[f64], share: f64) -> Option<f64> {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    percentile_of_sorted(&sorted, share)
}

fn percentile_of_sorted(sorted: &[f64], share: f64) -> Option<f64> {
    let place = share.clamp(0.0, 1.0) * sorted.len().checked_sub(1)? as f64;
    let (below, above) = (*sorted.get(place.floor() as usize)?, *sorted.get(place.ceil() as usize)?);
    Some(below + (above - below) * place.fract())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_median_is_the_middle() {
        assert_eq!(estimate(&[3.0, 1.0, 2.0]).unwrap().median, 2.0);
        assert_eq!(estimate(&[4.0, 1.0, 2.0, 3.0]).unwrap().median, 2.5);
        assert_eq!(estimate(&[]), None);
        assert_eq!(estimate(&[f64::NAN]), None);
    }

    #[test]
    fn ten_values_are_bounded_by_the_second_and_the_ninth() {
        // The textbook's: P(2nd <= median <= 9th of 10) = 1 - 2 * (1 + 10) / 1024.
        let values: Vec<f64> = (1..=10).map(f64::from).collect();
        let estimate = estimate(&values).unwrap();
        assert_eq!((estimate.low, estimate.high), (2.0, 9.0));
        assert!((estimate.confidence - (1.0 - 22.0 / 1024.0)).abs() < 1e-12);
    }

    #[test]
    fn few_values_give_their_extremes_and_say_how_little_that_covers() {
        let estimate = estimate(&[5.0, 1.0, 3.0]).unwrap();
        assert_eq!((estimate.low, estimate.high), (1.0, 5.0));
        assert!((estimate.confidence - 0.75).abs() < 1e-12);
        assert_eq!(super::estimate(&[7.0]).unwrap().confidence, 0.0);
    }

    #[test]
    fn one_outlier_moves_neither_median_nor_interval_far() {
        let mut values: Vec<f64> = (1..=20).map(f64::from).collect();
        let before = estimate(&values).unwrap();
        values[19] = 1e9;
        assert_eq!(estimate(&values).unwrap(), before);
    }

    #[test]
    fn percentiles_are_between_neighbours() {
        let values = [10.0, 20.0, 30.0, 40.0, 50.0];
        assert_eq!(percentile(&values, 0.99), Some(49.6));
        assert_eq!(percentile(&values, 0.0), Some(10.0));
        assert_eq!(percentile(&values, 1.0), Some(50.0));
        assert_eq!(percentile(&[], 0.5), None);
    }
}
