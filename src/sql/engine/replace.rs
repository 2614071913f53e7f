//! What a query or alert goes on with when another version takes its place, and what is forgotten when it is dropped.

use std::sync::Arc;

use super::growth::{keeps_keys, repartitioned};
use super::launch::{Own, Planned};
use super::phases::{own_topics, owners, parts_topic};
use super::{Engine, storage};
use crate::bus::{TaskId, checkpoint_topic};
use crate::record::{PartitionId, TopicPartition};
use crate::sql::catalog::Entry;
use crate::sql::error::{Code, SqlError};
use crate::sql::lower::Placement;
use crate::sql::statement::Kind;
use crate::stream::{Refill, hand_over};

impl Engine {
    /// Whether a new version can go on where the old one stands; asked before anything is written.
    pub(super) async fn check_tasks(&self, entry: &Entry, planned: &Planned) -> Result<(), SqlError> {
        if self.phases_of(entry, planned).await?.is_some() {
            return self.check_phases(entry, planned).await;
        }
        self.check_whole(entry).await?;
        let is_merged = planned.plan.placement == Placement::Merged;
        let owner = entry.owner(is_merged);
        let before = entry.owner(!is_merged);
        if before != owner {
            self.check_cut(entry, &before).await?;
        }
        let there = self.bus.partitions(&checkpoint_topic(&owner)).await.map_err(|e| storage(&e))?;
        let (Some(there), count) = (there, self.cut(planned)?.len() as i32) else { return Ok(()) };
        if entry.kind == Kind::Alert && there != count {
            let message = format!(
                "alert \"{}\" remembers its open alerts in {there} tasks, and this version of it has {count}: it cannot go on with them",
                entry.name
            );
            return Err(SqlError::new(Code::InUse, message).hint("DROP it and CREATE it again, once its open alerts are resolved"));
        }
        if there > count || (there < count && keeps_keys(entry, &planned.plan)) {
            return Err(repartitioned(&planned.inputs[0].stream, there, count));
        }
        Ok(())
    }

    /// Where a query's tasks are cut in another way than those of the version before, hands over where these stood.
    pub(super) async fn hand_over(&self, entry: &Entry, owner: &Arc<str>, tasks: &[Own]) -> Result<(), SqlError> {
        let before = [true, false].map(|is_merged| entry.owner(is_merged)).into_iter().find(|other| **other != **owner);
        let Some(before) = before else { return Ok(()) };
        self.check_cut(entry, &before).await?;
        let place = checkpoint_topic(&before);
        let Some(count) = self.bus.partitions(&place).await.map_err(|e| storage(&e))? else { return Ok(()) };
        let to: Vec<TaskId> = (0..tasks.len()).map(|index| TaskId { owner: Arc::clone(owner), index: index as i32 }).collect();
        hand_over(self.bus.as_ref(), &before, count, &to, self.clock.now().0)
            .await
            .map_err(|e| SqlError::new(Code::Storage, e.to_string()))?;
        // From now on the new tasks' checkpoints are what counts.
        self.bus.delete_topic(&place).await.map_err(|e| storage(&e))
    }

    /// How a replaced query or alert has come by its state, for whoever replaced it; `updates` names what holds its results where they change:
    /// of which keys there were some before nobody knows any more once the state is another plan's.
    pub(super) fn goes_on_with(&self, name: &str, updates: Option<&str>) -> String {
        let running = self.running.lock();
        let Some(running) = running.get(name) else { return String::new() };
        if running.entry.paused {
            return format!("; RESUME {} {name} starts it where it was", running.entry.kind.word().to_uppercase());
        }
        let tasks = running.tasks.as_slice();
        let mut refill = Refill::default();
        tasks.iter().for_each(|task| refill.add(task.stats.refill_progress()));
        let Refill { goes_on, read, records } = refill;
        let left = updates.map_or_else(String::new, |into| {
            format!("; all its results are told again, and a key that it no longer has keeps its last row in \"{into}\"")
        });
        if goes_on {
            format!(
                "; its state is being made again from {records} records of its input, {read} of them read: WHY QUERY {name} says how far it is{left}"
            )
        } else if records == 0 {
            "; it goes on where it was".to_owned()
        } else {
            format!("; it goes on where it was, its state made again from {records} records of its input{left}")
        }
    }

    /// Forgets where a query or alert stood, and lets go of the records it has kept from retention.
    pub(super) async fn forget_checkpoints(&self, entry: &Entry) -> Result<(), SqlError> {
        let inputs: Vec<_> = {
            let catalog = self.catalog.read();
            let reads = catalog.reads_through(entry.reads());
            let topics = reads.iter().filter_map(|name| catalog.relation(&name.text).map(|def| def.topic.clone()));
            topics.chain([parts_topic(entry)]).collect()
        };
        for owner in owners(entry) {
            let place = checkpoint_topic(&owner);
            let tasks = self.bus.partitions(&place).await.map_err(|e| storage(&e))?.unwrap_or(0);
            for topic in &inputs {
                let partitions = self.bus.partitions(topic).await.map_err(|e| storage(&e))?.unwrap_or(0);
                for index in 0..tasks {
                    let task = TaskId { owner: owner.as_str().into(), index };
                    for partition in 0..partitions {
                        let of = TopicPartition::new(topic.clone(), PartitionId(partition));
                        self.bus.pin(&task, &of, None);
                    }
                }
            }
        }
        for topic in own_topics(entry) {
            if self.bus.partitions(&topic).await.map_err(|e| storage(&e))?.is_some() {
                self.bus.delete_topic(&topic).await.map_err(|e| storage(&e))?;
            }
        }
        Ok(())
    }
}
