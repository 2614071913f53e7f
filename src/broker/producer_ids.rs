//! Identities of idempotent producers: [`ProducerIds`]. No id is ever given twice, whatever crashes.
//!
//! Always: ids are taken from a block whose end is durable in the internal topic `__producer_ids`; after a
//! restart the next block begins there, so what was left of the old one is skipped. Called by `Broker`.

use std::sync::Arc;

use super::error::BrokerError;
use super::journal::Journal;
use crate::log::Log;
use crate::record::TopicId;
use crate::time::Clock;

/// Ids taken at once.
const BLOCK: i64 = 1000;
const KEY: &[u8] = b"next";

/// Gives ids.
pub(super) struct ProducerIds {
    journal: Arc<Journal>,
    /// Held while a new block becomes durable: everyone else needs that block too.
    block: tokio::sync::Mutex<Block>,
}

/// `next..end` may be given.
struct Block {
    next: i64,
    end: i64,
}

impl ProducerIds {
    /// Goes on where the last block ended. Blocks.
    pub(super) fn open(log: &Arc<Log>, id: TopicId, clock: Clock) -> Result<Self, BrokerError> {
        let mut end = 0;
        let journal = Journal::open(log, "__producer_ids", id, clock, |_, key, value| {
            if key == Some(KEY)
                && let Some(value) = value.and_then(|v| v.first_chunk::<8>())
            {
                end = end.max(i64::from_be_bytes(*value));
            }
        })?;
        Ok(Self { journal, block: tokio::sync::Mutex::new(Block { next: end, end }) })
    }

    pub(super) const fn journal(&self) -> &Arc<Journal> {
        &self.journal
    }

    /// A fresh id.
    pub(super) async fn next(&self) -> Result<i64, BrokerError> {
        let mut block = self.block.lock().await;
        if block.next == block.end {
            let end = block.end + BLOCK;
            self.journal.append(&[(KEY.to_vec(), Some(end.to_be_bytes().to_vec()))]).await?;
            block.end = end;
        }
        let id = block.next;
        block.next += 1;
        Ok(id)
    }
}
