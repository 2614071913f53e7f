//! A log that tells a test what is done to it.

use std::ops::Range;

use super::*;
use crate::bus::{BusError, BusFuture, Committer, Reader, TaskId, TopicSpec};

/// What a test does about it.
pub(super) trait Watch: Send + Sync + 'static {
    /// Somebody asks what there is.
    fn asked(&self) -> Result<(), BusError> {
        Ok(())
    }
    /// Somebody asks where a partition ends.
    fn asked_for_its_end(&self) -> Result<(), BusError> {
        Ok(())
    }
    /// Something has been written, or a writer taken over.
    fn is_done(&self) {}
    /// A partition has been opened.
    fn opened(&self, _of: &TopicPartition, reader: Box<dyn Reader>) -> Box<dyn Reader> {
        reader
    }
}

/// The embedded log, watched.
pub(super) struct Watched<W> {
    pub log: EmbeddedBus,
    pub by: Arc<W>,
}

impl<W: Watch> Watched<W> {
    async fn then_tell<T>(&self, doing: BusFuture<'_, T>) -> Result<T, BusError> {
        let done = doing.await;
        self.by.is_done();
        done
    }
}

impl<W: Watch> Bus for Watched<W> {
    fn partitions<'a>(&'a self, topic: &'a TopicName) -> BusFuture<'a, Option<i32>> {
        Box::pin(async move {
            self.by.asked()?;
            self.log.partitions(topic).await
        })
    }
    fn ensure_topic<'a>(&'a self, topic: &'a TopicName, spec: &'a TopicSpec) -> BusFuture<'a, i32> {
        Box::pin(self.then_tell(self.log.ensure_topic(topic, spec)))
    }
    fn delete_topic<'a>(&'a self, topic: &'a TopicName) -> BusFuture<'a, ()> {
        Box::pin(self.then_tell(self.log.delete_topic(topic)))
    }
    fn bounds<'a>(&'a self, of: &'a TopicPartition) -> BusFuture<'a, Range<Offset>> {
        Box::pin(async move {
            self.by.asked_for_its_end()?;
            self.log.bounds(of).await
        })
    }
    fn offset_at<'a>(&'a self, of: &'a TopicPartition, at: i64) -> BusFuture<'a, Option<Offset>> {
        self.log.offset_at(of, at)
    }
    fn open<'a>(&'a self, of: &'a TopicPartition, from: Offset) -> BusFuture<'a, Box<dyn Reader>> {
        Box::pin(async move { Ok(self.by.opened(of, self.log.open(of, from).await?)) })
    }
    fn wait<'a>(&'a self, of: &'a TopicPartition, from: Offset) -> BusFuture<'a, ()> {
        self.log.wait(of, from)
    }
    fn committer<'a>(&'a self, task: &'a TaskId) -> BusFuture<'a, Box<dyn Committer>> {
        Box::pin(self.then_tell(self.log.committer(task)))
    }
    fn append<'a>(&'a self, outputs: Vec<TopicBatch>) -> BusFuture<'a, ()> {
        Box::pin(self.then_tell(self.log.append(outputs)))
    }
    fn trim<'a>(&'a self, of: &'a TopicPartition, before: Offset) -> BusFuture<'a, ()> {
        Box::pin(self.then_tell(self.log.trim(of, before)))
    }
    fn pin(&self, task: &TaskId, of: &TopicPartition, from: Option<Offset>) {
        self.log.pin(task, of, from);
    }
}
