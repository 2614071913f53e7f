//! The inputs of a task: the partitions of the sources it reads, and where it stands in each.
//!
//! A task reads one source, or those of a join. Always: an input has a number of its own, under which the checkpoint
//! knows it; of the first source it is the partition's.

use std::sync::Arc;
use std::time::Duration;

use super::checkpoint::Milestones;
use super::feed::{Feed, Follower, Following};
use super::heard::Heard;
use super::letters::Letters;
use super::source::{Stamper, TimeRule};
use super::task::StartAt;
use crate::record::{Offset, PartitionId};
use crate::time::Timestamp;

/// Below this bit of an input's number stands its partition, above it its source.
const SOURCE_BIT: u32 = 20;

/// One source of a task, in the order in which the query reads them.
#[derive(Clone)]
pub struct SourceSpec {
    /// Its partitions that this task reads, in order.
    pub inputs: Vec<Arc<Feed>>,
    /// How it tells time.
    pub time: TimeRule,
    /// A partition read to its end leaves the merged minimum after this long without a row.
    pub idle_timeout: Option<Duration>,
    /// Where to begin without a checkpoint.
    pub start: StartAt,
    /// Whether it is a table: what it said long ago still holds.
    pub is_table: bool,
    /// Where late and failed rows go.
    pub letters: Letters,
}

/// The number of an input, by the place of its source and its partition.
pub(super) const fn number(source: usize, partition: PartitionId) -> i32 {
    ((source as i32) << SOURCE_BIT) | partition.0
}

/// The partition of a number: rows that have come through a union carry their source above it.
pub(super) const fn partition_of(number: PartitionId) -> PartitionId {
    PartitionId(number.0 & ((1 << SOURCE_BIT) - 1))
}

/// The place of the source in a number.
pub(super) const fn source_of(number: PartitionId) -> usize {
    (number.0 >> SOURCE_BIT) as usize
}

/// The number of what stands so many sources further right.
pub(super) const fn behind(number: PartitionId, sources: usize) -> PartitionId {
    PartitionId(number.0 + ((sources as i32) << SOURCE_BIT))
}

/// A number, its source by where that stands now; `None` where it is no longer read.
pub(super) fn renumbered(of: i32, places: &[Option<usize>]) -> Option<i32> {
    let source = places.get(source_of(PartitionId(of))).copied().flatten()?;
    Some(number(source, partition_of(PartitionId(of))))
}

/// One input partition as the task sees it.
pub(super) struct Input {
    pub feed: Follower,
    /// The place of its source.
    pub source: usize,
    pub partition: PartitionId,
    pub number: i32,
    pub position: Offset,
    /// The first record that the query has read, or would have.
    pub began: Offset,
    pub milestones: Milestones,
    /// What the clock said of its last rows.
    pub heard: Heard,
    pub stamper: Stamper,
    pub idle: bool,
    /// Whether the last look found nothing that tells time, and how long nothing has come.
    pub quiet: Option<Quiet>,
    /// The TIMEOUT has already moved the watermark this far.
    pub timed_out_to: i64,
}

/// By the node's clock, from when to when a partition has been silent. What has come since it was last looked at is not known: the clock
/// goes on while a task is busy elsewhere, and its silence does not.
#[derive(Clone, Copy)]
pub(super) struct Quiet {
    pub since: Timestamp,
    pub upto: Timestamp,
}

impl Input {
    /// A look that began `at` has found nothing that tells time.
    pub(super) fn is_quiet(&mut self, at: Timestamp) {
        let since = self.quiet.map_or(at, |quiet| quiet.since);
        self.quiet = Some(Quiet { since, upto: at });
    }
}

/// The inputs of some sources, nothing read yet.
pub(super) fn inputs_of(sources: &[SourceSpec], following: Following) -> Vec<Input> {
    let alone = sources.iter().map(|spec| spec.inputs.len()).sum::<usize>() == 1;
    let following = if following == Following::Together && !alone { Following::First } else { following };
    let of = |(source, spec): (usize, &SourceSpec)| {
        let input = |feed: &Arc<Feed>| {
            let partition = feed.partition().partition;
            assert!(partition.0 < 1 << SOURCE_BIT, "a topic has fewer than a million partitions");
            Input {
                feed: Follower::new(Arc::clone(feed), following),
                source,
                partition,
                number: number(source, partition),
                position: Offset::ZERO,
                began: Offset::ZERO,
                milestones: Milestones::default(),
                heard: Heard::default(),
                stamper: Stamper::new(spec.time.clone(), partition),
                idle: false,
                quiet: None,
                timed_out_to: i64::MIN,
            }
        };
        spec.inputs.iter().map(input).collect::<Vec<_>>()
    };
    sources.iter().enumerate().flat_map(of).collect()
}
