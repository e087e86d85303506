//! What a trace came to, in bounded memory: counts, times, and the names that got no answer.

use std::collections::{BTreeMap, HashMap};

use super::transaction::Transaction;
use crate::ended::Ended;

/// Names remembered at most.
const MAX_NAMES: usize = 1024;

/// Counts over transactions.
#[derive(Clone, Debug, Default)]
pub struct Summary {
    pub by_end: BTreeMap<Ended, u64>,
    pub latency: Histogram,
    /// Transactions during which events were lost.
    pub with_losses: u64,
    unanswered: HashMap<String, u64>,
    /// Without an answer under further names.
    unnamed: u64,
}

impl Summary {
    pub fn add(&mut self, transaction: &Transaction) {
        *self.by_end.entry(transaction.ended).or_default() += 1;
        self.with_losses += u64::from(transaction.events_lost > 0);
        if let Some(total) = transaction.latency.total_us {
            self.latency.add(total);
        }
        if matches!(transaction.ended, Ended::Answered | Ended::Unknown | Ended::Malformed) {
            return;
        }
        let Some(name) = &transaction.qname else { return };
        if let Some(count) = self.unanswered.get_mut(name) {
            *count += 1;
        } else if self.unanswered.len() < MAX_NAMES {
            self.unanswered.insert(name.clone(), 1);
        } else {
            self.unnamed += 1;
        }
    }

    #[must_use]
    pub fn total(&self) -> u64 {
        self.by_end.values().sum()
    }

    /// The names that most often got no answer, with how often; and how many more times it happened to others.
    #[must_use]
    pub fn unanswered(&self, most: usize) -> (Vec<(&str, u64)>, u64) {
        let mut names: Vec<(&str, u64)> = self.unanswered.iter().map(|(name, &count)| (name.as_str(), count)).collect();
        names.sort_by(|a, b| b.1.cmp(&a.1).then(a.0.cmp(b.0)));
        let rest = names.iter().skip(most).map(|(_, count)| count).sum::<u64>() + self.unnamed;
        names.truncate(most);
        (names, rest)
    }
}

/// Sixteen buckets to each power of two: percentiles are right within 6 %, whatever the number of values.
#[derive(Clone, Debug)]
pub struct Histogram {
    buckets: Vec<u64>,
    count: u64,
    max: u64,
}

const FINE: u32 = 4;

impl Default for Histogram {
    fn default() -> Self {
        Self { buckets: vec![0; (64 << FINE) as usize], count: 0, max: 0 }
    }
}

impl Histogram {
    pub fn add(&mut self, value: u64) {
        self.buckets[bucket(value)] += 1;
        self.count += 1;
        self.max = self.max.max(value);
    }

    #[must_use]
    pub const fn count(&self) -> u64 {
        self.count
    }

    #[must_use]
    pub const fn max(&self) -> u64 {
        self.max
    }

    /// The value that `percent` of all do not exceed; none where there are none.
    #[must_use]
    pub fn percentile(&self, percent: u64) -> Option<u64> {
        let rank = (self.count * percent).div_ceil(100).max(1);
        let mut below = 0;
        let at = self.buckets.iter().position(|&count| {
            below += count;
            below >= rank
        })?;
        Some(highest(at).min(self.max))
    }
}

const fn bucket(value: u64) -> usize {
    let bits = u64::BITS - value.leading_zeros();
    if bits <= FINE {
        return value as usize;
    }
    let shift = bits - FINE - 1;
    (((shift + 1) as usize) << FINE) + ((value >> shift) as usize & ((1 << FINE) - 1))
}

/// The largest value of a bucket.
const fn highest(bucket: usize) -> u64 {
    let (power, fine) = (bucket >> FINE, (bucket & ((1 << FINE) - 1)) as u64);
    if power == 0 {
        return fine;
    }
    let shift = power as u32 - 1;
    let lowest = (fine | 1 << FINE) << shift;
    lowest + ((1 << shift) - 1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn percentiles_are_right_within_six_percent() {
        let mut histogram = Histogram::default();
        assert_eq!(histogram.percentile(50), None);
        (1..=10_000).for_each(|value| histogram.add(value));
        for percent in [1, 50, 90, 99, 100] {
            let (is, should) = (histogram.percentile(percent).expect("values"), percent * 100);
            assert!(is >= should && is <= should + should / 16 + 1, "p{percent} is {is}, should be {should}");
        }
        assert_eq!((histogram.count(), histogram.max()), (10_000, 10_000));
    }

    proptest::proptest! {
        #[test]
        fn every_value_has_a_bucket_that_holds_it(value in proptest::num::u64::ANY) {
            let at = bucket(value);
            proptest::prop_assert!(at < 64 << FINE);
            proptest::prop_assert!(highest(at) >= value && (at == 0 || highest(at - 1) < value));
        }
    }
}
