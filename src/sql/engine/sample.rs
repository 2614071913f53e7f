//! `CREATE STREAM .. LIKE SAMPLE OF TOPIC`: looks at a topic's last records, and creates what fits them.

use std::sync::Arc;

use super::{Engine, Outcome, storage};
use crate::format::{FieldGuess, columns_of_schema};
use crate::record::{Offset, PartitionId, TopicPartition};
use crate::registry::{Known, Registry};
use crate::sql::catalog::Existing;
use crate::sql::error::{Code, SqlError};
use crate::sql::options::FormatName;
use crate::sql::parse::parse_statement;
use crate::sql::sample::{Sampled, guess_format, of_records, of_schema};
use crate::sql::show::lines;
use crate::sql::statement::CreateLike;

/// So many records of a partition are looked at, and so many of all.
const PER_PARTITION: i64 = 500;
const MAX_RECORDS: usize = 1_000;
/// How much of a partition is read for them at most, and how much is kept of all.
const MAX_BYTES: usize = 4 << 20;
const MAX_KEPT: usize = 16 << 20;
const POLL_BYTES: usize = 256 << 10;

impl Engine {
    /// Creates the stream, and answers its statement.
    pub(super) async fn create_like(self: &Arc<Self>, like: &CreateLike, existing: Existing) -> Result<Outcome, SqlError> {
        // A file that is applied at each start does not make another stream of what has come since.
        let leave = like.if_not_exists || existing == Existing::Replace;
        if leave && self.catalog.read().relation(&like.name.text).is_some() {
            return Ok(Outcome::Done(format!("\"{}\" is there already and was left as it is", like.name)));
        }
        let records = self.sample(like).await?;
        let format = guess_format(like, &records)?;
        let text = match format.registry_kind() {
            None => of_records(like, format, &records)?,
            Some(_) => of_schema(like, format, self.schema_of(like, format, &records).await?)?,
        };
        let parsed = parse_statement(&text)?;
        self.create(&parsed, existing).await?;
        Ok(super::statements::rows(lines("statement", &text)))
    }

    /// The last records of each partition.
    async fn sample(&self, like: &CreateLike) -> Result<Vec<Sampled>, SqlError> {
        let bad = |message: String| SqlError::new(Code::BadDefinition, message).at(like.topic_place);
        let partitions = self.bus.partitions(&like.topic).await.map_err(|e| storage(&e))?;
        let Some(partitions) = partitions else {
            return Err(SqlError::new(Code::NoSuchName, format!("there is no topic \"{}\"", like.topic)).at(like.topic_place));
        };
        let (mut found, mut kept) = (Vec::<Sampled>::new(), 0);
        let enough = |found: &[Sampled], kept: usize| found.len() >= MAX_RECORDS || kept >= MAX_KEPT;
        for partition in 0..partitions {
            if enough(&found, kept) {
                break;
            }
            let of = TopicPartition::new(like.topic.clone(), PartitionId(partition));
            let bounds = self.bus.bounds(&of).await.map_err(|e| storage(&e))?;
            let from = bounds.start.max(Offset(bounds.end.0.saturating_sub(PER_PARTITION)));
            let mut reader = self.bus.open(&of, from).await.map_err(|e| storage(&e))?;
            let mut bytes = 0;
            while reader.position() < bounds.end && bytes < MAX_BYTES && !enough(&found, kept) {
                let batches = reader.poll(POLL_BYTES).await.map_err(|e| storage(&e))?;
                if batches.is_empty() {
                    break;
                }
                for batch in batches.iter().filter(|batch| !batch.header().is_control()) {
                    bytes += batch.len_bytes();
                    let records = batch.records().map_err(|e| bad(e.to_string()))?;
                    for record in records.iter().filter_map(Result::ok).filter(|record| record.offset >= from) {
                        // A null value deletes: it shows nothing of what values are.
                        let Some(value) = record.value.filter(|_| !enough(&found, kept)) else { continue };
                        let key = record.key.map(<[u8]>::to_vec);
                        kept += value.len() + key.as_ref().map_or(0, Vec::len);
                        found.push(Sampled { key, value: value.to_vec() });
                    }
                }
            }
        }
        if found.is_empty() {
            return Err(
                bad(format!("topic \"{}\" holds no records to look at", like.topic)).hint("write the columns: CREATE STREAM .. (..)")
            );
        }
        Ok(found)
    }

    /// What the schema of the last record that has one says of its columns.
    async fn schema_of(&self, like: &CreateLike, format: FormatName, records: &[Sampled]) -> Result<Vec<FieldGuess>, SqlError> {
        let bad = |message: String| SqlError::new(Code::BadDefinition, message).at(like.topic_place);
        let url = like.given.iter().find(|g| g.name == "schema.registry.url");
        let Some(url) = url else {
            return Err(
                bad(format!("format {} needs 'schema.registry.url'", format.word())).hint("add 'schema.registry.url' = 'http://..'")
            );
        };
        let registry = Arc::new(Registry::new(&url.value).map_err(|e| bad(e.to_string()))?);
        let framed = records.iter().rev().find_map(|r| match r.value.as_slice() {
            [0, a, b, c, d, rest @ ..] => Some((u32::from_be_bytes([*a, *b, *c, *d]), rest)),
            _ => None,
        });
        let Some((id, rest)) = framed else {
            let message = format!("no record of topic \"{}\" has a zero and a schema's id in front", like.topic);
            return Err(bad(message).hint("say what the records are: WITH ('format' = 'json')"));
        };
        let asked = registry.fetch(id).await;
        asked.map_err(|e| bad(e.to_string()).hint("see that the registry runs and can be reached from the node"))?;
        match registry.known(id) {
            Some(Known::Schema(schema)) if Some(schema.kind) == format.registry_kind() => {
                columns_of_schema(&schema, rest).map_err(|why| bad(format!("schema {id} of the registry {}: {why}", registry.url())))
            }
            Some(Known::Schema(schema)) => Err(bad(format!(
                "schema {id} of the registry {} is {}, and the format is {}",
                registry.url(),
                schema.kind.word(),
                format.word()
            ))),
            Some(Known::Missing) | None => Err(bad(format!("the schema registry {} has no schema {id}", registry.url()))),
        }
    }
}
