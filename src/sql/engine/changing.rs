//! Results that change, and who else reads or writes the topic they are written to.
//!
//! A record of such a topic takes the place of the one before it under the same key, which is what a table is. How many
//! records there are of a key depends on when commits fell: so no query and no alert takes them for rows that stay. Called
//! where queries and alerts are created, and by `checker`.

use std::collections::BTreeSet;
use std::sync::Arc;

use crate::record::TopicName;
use crate::sql::catalog::{Catalog, Entry, StreamDef};
use crate::sql::error::{Code, SqlError};
use crate::sql::lower::{Purpose, QueryPlan, plan};
use crate::sql::statement::{Kind, Name, Select, Statement};

/// What to do instead.
const AS_TABLE: &str =
    "read them as a table: CREATE TABLE .. (.., PRIMARY KEY (..) NOT ENFORCED) over the topic, joined with FOR SYSTEM_TIME AS OF";

/// Rows that take the place of earlier ones do so by their key: a stream with a key has this one, a table always.
pub(super) fn check_upserts(plan: &QueryPlan, def: &StreamDef, listed: &[Name]) -> Result<(), SqlError> {
    if !plan.is_changing() || def.key_columns().is_empty() {
        return Ok(());
    }
    let name = |key: &String| match plan.schema.index_of(key).ok().and_then(|at| listed.get(at)) {
        Some(listed) => listed.text.clone(),
        None => key.clone(),
    };
    let own: BTreeSet<String> = plan.key_columns.iter().map(name).collect();
    if own == def.key_columns().iter().cloned().collect() {
        return Ok(());
    }
    let shown = |keys: Vec<String>| if keys.is_empty() { "none".to_owned() } else { keys.join(", ") };
    let message = format!(
        "the results change, and their key is ({}), while the key of \"{}\" is ({})",
        shown(own.into_iter().collect()),
        def.name,
        shown(def.key_columns().to_vec())
    );
    Err(SqlError::new(Code::BadDefinition, message).hint("write into a stream or table with the results' key, or without one"))
}

/// Refuses a query or alert that reads as a stream what another one keeps up to date.
pub(super) fn check_reads(catalog: &Catalog, own: &str, select: &Select) -> Result<(), SqlError> {
    for read in &catalog.reads_through(&select.reads) {
        let Some(def) = catalog.relation(&read.text).filter(|def| def.kind == Kind::Stream && !def.is_view) else { continue };
        if let Some(writer) = changing_writer(catalog, own, &def.topic) {
            let message = format!("stream \"{}\" holds the results of query \"{writer}\", which change", def.name);
            return Err(SqlError::new(Code::NotOnAStream, message).at(read.place).hint(AS_TABLE));
        }
    }
    Ok(())
}

/// Refuses a query whose results change where another query or an alert reads them as a stream.
pub(super) fn check_readers(catalog: &Catalog, own: &str, plan: &QueryPlan, into: &Name) -> Result<(), SqlError> {
    if !plan.is_changing() {
        return Ok(());
    }
    let topic = topic_of(catalog, into);
    for entry in catalog.all_tasks().filter(|entry| entry.name != own) {
        let reads =
            |read: &Name| catalog.relation(&read.text).is_some_and(|def| def.kind == Kind::Stream && Some(&def.topic) == topic.as_ref());
        if catalog.reads_through(entry.reads()).iter().any(reads) {
            let message = format!("the results change, and {} \"{}\" reads \"{into}\" as a stream", entry.kind.word(), entry.name);
            return Err(SqlError::new(Code::NotOnAStream, message).at(into.place).hint("write them into another stream, or a table"));
        }
    }
    Ok(())
}

fn topic_of(catalog: &Catalog, into: &Name) -> Option<TopicName> {
    catalog.relation(&into.text).map(|def| def.topic.clone()).or_else(|| TopicName::new(&into.text).ok())
}

/// The query, other than `own`, that writes results that change to a topic.
fn changing_writer(catalog: &Catalog, own: &str, topic: &TopicName) -> Option<String> {
    // Whether results change does not depend on how many partitions there are.
    let source = |name: &str| catalog.relation(name).map(|def| def.source(1));
    let changes = |entry: &&Arc<Entry>| match &*entry.statement {
        Statement::CreateQuery(query) | Statement::CreateView(query) => {
            entry.name != own
                && topic_of(catalog, &query.insert_into).as_ref() == Some(topic)
                && catalog
                    .expanded(&query.select)
                    .and_then(|select| plan(&select, &source, Purpose::ExactlyOnce))
                    .is_ok_and(|plan| plan.is_changing())
        }
        _ => false,
    };
    catalog.all_tasks().find(changes).map(|entry| entry.name.clone())
}
