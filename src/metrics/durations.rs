//! How long things took, in the buckets of the histograms, kept by whoever does them.
//!
//! Always: one writer, any number of readers. Brought over at a scrape with [`super::Told::durations`].

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use super::SECONDS;

/// Counts by bucket; what took longer than the last one comes behind it.
#[derive(Debug, Default)]
pub struct Durations {
    buckets: [AtomicU64; SECONDS.len() + 1],
    nanos: AtomicU64,
}

/// The counts at one moment, of one writer or of several.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct DurationCounts {
    pub(super) buckets: [u64; SECONDS.len() + 1],
    pub(super) seconds: f64,
}

impl Durations {
    /// It took so long once.
    pub fn observe(&self, took: Duration) {
        let seconds = took.as_secs_f64();
        let bucket = SECONDS.iter().position(|bound| seconds <= *bound).unwrap_or(SECONDS.len());
        self.buckets[bucket].fetch_add(1, Ordering::Relaxed);
        self.nanos.fetch_add(took.as_nanos() as u64, Ordering::Relaxed);
    }

    /// The counts now.
    #[must_use]
    pub fn counts(&self) -> DurationCounts {
        let buckets = self.buckets.each_ref().map(|count| count.load(Ordering::Relaxed));
        DurationCounts { buckets, seconds: self.nanos.load(Ordering::Relaxed) as f64 / 1e9 }
    }
}

impl DurationCounts {
    /// Takes in another's.
    pub fn add(&mut self, other: &Self) {
        self.buckets.iter_mut().zip(other.buckets).for_each(|(own, more)| *own += more);
        self.seconds += other.seconds;
    }

    /// How often.
    #[must_use]
    pub fn count(&self) -> u64 {
        self.buckets.iter().sum()
    }

    /// How long on average; `None` where there was nothing.
    #[must_use]
    pub fn mean(&self) -> Option<Duration> {
        let count = self.count();
        (count > 0).then(|| Duration::from_secs_f64(self.seconds / count as f64))
    }

    /// The bound of the bucket that holds this share of them, from 0 to 1: so long at most. `None` beyond the last bound, or where
    /// there was nothing.
    #[must_use]
    pub fn within(&self, share: f64) -> Option<Duration> {
        let wanted = (self.count() as f64 * share).ceil() as u64;
        let mut seen = 0;
        let bucket = self.buckets.iter().position(|count| {
            seen += count;
            wanted > 0 && seen >= wanted
        })?;
        SECONDS.get(bucket).map(|bound| Duration::from_secs_f64(*bound))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_duration_counts_up_to_the_bound_it_does_not_pass() {
        let taken = Durations::default();
        for ms in [1, 1, 2, 600] {
            taken.observe(Duration::from_millis(ms));
        }
        let mut counts = taken.counts();
        assert_eq!((counts.count(), counts.mean()), (4, Some(Duration::from_millis(151))));
        assert_eq!(counts.within(0.5), Some(Duration::from_millis(1)));
        assert_eq!(counts.within(0.75), Some(Duration::from_micros(2500)));
        assert_eq!(counts.within(0.99), Some(Duration::from_secs(1)));
        taken.observe(Duration::from_secs(60));
        counts.add(&taken.counts());
        assert_eq!((counts.count(), counts.within(1.0)), (9, None));
        assert_eq!((DurationCounts::default().mean(), DurationCounts::default().within(0.5)), (None, None));
    }
}
