//! Stratified Wilcoxon rank-sum test, exact: were these two sets of times drawn from one? Times are compared only within
//! a stratum (the same question over the same transport), their ranks are summed over all strata, and the sum is held
//! against every way in which the times could have been dealt to before and after. Ties have the mean of their ranks.

/// Times of one question, before and after.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Stratum {
    pub(super) before: Vec<u64>,
    pub(super) after: Vec<u64>,
}

/// More than so many times per stratum and side are not looked at: the distribution takes the cube of their number.
const MOST: usize = 40;

/// The chance, two-sided, of a rank sum as far from the expected one as this; and the least that so few times could
/// ever give. None: nothing to compare.
pub(super) fn p_value(strata: &[Stratum]) -> Option<(f64, f64)> {
    let strata: Vec<Stratum> = strata
        .iter()
        .filter(|stratum| !stratum.before.is_empty() && !stratum.after.is_empty())
        .map(|stratum| Stratum { before: first(&stratum.before), after: first(&stratum.after) })
        .collect();
    if strata.is_empty() {
        return None;
    }
    let mut observed = 0;
    let mut all = vec![1.0_f64];
    let mut least = 1.0_f64;
    for stratum in &strata {
        let ranks = doubled_ranks(stratum);
        let size = stratum.after.len();
        observed += ranks[stratum.before.len()..].iter().sum::<usize>();
        let own = distribution(&ranks, size);
        least *= smallest(&own);
        all = convolve(&all, &own);
    }
    let below: f64 = all[..=observed].iter().sum();
    let above: f64 = all[observed..].iter().sum();
    let p = (2.0 * below.min(above)).min(1.0);
    Some((p, (2.0 * least).min(1.0)))
}

fn first(times: &[u64]) -> Vec<u64> {
    times.iter().copied().take(MOST).collect()
}

/// Twice the mid-rank of each time, so that they are whole numbers: those before first, then those after.
fn doubled_ranks(stratum: &Stratum) -> Vec<usize> {
    let all: Vec<u64> = stratum.before.iter().chain(&stratum.after).copied().collect();
    let rank = |time: &u64| {
        let smaller = all.iter().filter(|other| *other < time).count();
        let same = all.iter().filter(|other| *other == time).count();
        2 * smaller + same + 1
    };
    all.iter().map(rank).collect()
}

/// Chance of each sum of `size` of these ranks, where every choice is as likely: index is the sum.
fn distribution(ranks: &[usize], size: usize) -> Vec<f64> {
    let most: usize = ranks.iter().sum();
    // ways[n][sum]: choices of n ranks with that sum, as a share of all choices of `size`.
    let mut ways = vec![vec![0.0_f64; most + 1]; size + 1];
    ways[0][0] = 1.0;
    for &rank in ranks {
        for count in (1..=size).rev() {
            let (fewer, these) = ways.split_at_mut(count);
            let from = &fewer[count - 1];
            for sum in (rank..=most).rev() {
                these[0][sum] += from[sum - rank];
            }
        }
    }
    let total: f64 = ways[size].iter().sum();
    ways.swap_remove(size).into_iter().map(|ways| ways / total).collect()
}

/// Chance of the rarer of the two outermost sums.
fn smallest(distribution: &[f64]) -> f64 {
    let low = distribution.iter().copied().find(|chance| *chance > 0.0).unwrap_or(1.0);
    let high = distribution.iter().rev().copied().find(|chance| *chance > 0.0).unwrap_or(1.0);
    low.min(high)
}

fn convolve(left: &[f64], right: &[f64]) -> Vec<f64> {
    let mut sums = vec![0.0; left.len() + right.len() - 1];
    for (i, a) in left.iter().enumerate().filter(|(_, a)| **a > 0.0) {
        for (j, b) in right.iter().enumerate() {
            sums[i + j] += a * b;
        }
    }
    sums
}

#[cfg(test)]
mod tests {
    use super::*;

    fn stratum(before: &[u64], after: &[u64]) -> Stratum {
        Stratum { before: before.to_vec(), after: after.to_vec() }
    }

    fn p(strata: &[Stratum]) -> f64 {
        p_value(strata).unwrap().0
    }

    fn is_close(left: f64, right: f64) {
        assert!((left - right).abs() < 1e-9, "{left} is not {right}");
    }

    /// Tables of the exact Mann-Whitney distribution: of 20 choices of 3 of 6 one is outermost, of 252 of 5 of 10 too.
    #[test]
    fn one_stratum_is_the_mann_whitney_test() {
        is_close(p(&[stratum(&[1, 2, 3], &[4, 5, 6])]), 2.0 / 20.0);
        is_close(p(&[stratum(&[4, 5, 6], &[1, 2, 3])]), 2.0 / 20.0);
        is_close(p(&[stratum(&[1, 2, 3, 4, 5], &[6, 7, 8, 9, 10])]), 2.0 / 252.0);
        // U = 1 of 3 and 3: two of 20 choices are as far.
        is_close(p(&[stratum(&[1, 2, 4], &[3, 5, 6])]), 4.0 / 20.0);
        // scipy.stats.mannwhitneyu([1,3,5,7],[2,4,6,8], method="exact").pvalue
        is_close(p(&[stratum(&[1, 3, 5, 7], &[2, 4, 6, 8])]), 0.685_714_285_714_285_7);
    }

    #[test]
    fn strata_add_up_and_are_not_mixed() {
        let slower = stratum(&[1, 2, 3], &[4, 5, 6]);
        let far_away = stratum(&[1001, 1002, 1003], &[1004, 1005, 1006]);
        is_close(p(&[slower.clone(), far_away.clone()]), 2.0 / 400.0);
        let back = stratum(&[1004, 1005, 1006], &[1001, 1002, 1003]);
        is_close(p(&[slower, back]), 1.0);
    }

    #[test]
    fn ties_say_nothing() {
        is_close(p(&[stratum(&[5, 5, 5], &[5, 5, 5])]), 1.0);
        is_close(p_value(&[stratum(&[5, 5], &[5, 5])]).unwrap().1, 1.0);
    }

    #[test]
    fn too_few_are_known_to_be_too_few() {
        let (p, least) = p_value(&[stratum(&[1, 2], &[30, 40])]).unwrap();
        is_close(p, 2.0 / 6.0);
        is_close(least, 2.0 / 6.0);
        assert_eq!(p_value(&[stratum(&[], &[1])]), None);
        assert_eq!(p_value(&[]), None);
    }

    #[test]
    fn many_times_take_no_time_and_overflow_nothing() {
        let before: Vec<u64> = (0..500).collect();
        let after: Vec<u64> = (1000..1500).collect();
        let p = p(&[Stratum { before, after }]);
        assert!(p > 0.0 && p < 1e-20, "{p}");
    }

    proptest::proptest! {
        #[test]
        fn a_chance_is_one_and_does_not_care_which_side_is_which(
            before in proptest::collection::vec(0_u64..50, 1..8), after in proptest::collection::vec(0_u64..50, 1..8)
        ) {
            let there = p(&[Stratum { before: before.clone(), after: after.clone() }]);
            let back = p(&[Stratum { before: after, after: before }]);
            proptest::prop_assert!((0.0..=1.0).contains(&there) && there > 0.0);
            proptest::prop_assert!((there - back).abs() < 1e-9);
        }
    }
}
