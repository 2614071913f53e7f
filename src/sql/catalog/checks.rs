//! What a new entry may not do: take a name of another, write where it must not, feed itself.

use std::collections::BTreeSet;
use std::sync::Arc;

use super::{Catalog, Entry, StreamDef};
use crate::record::TopicName;
use crate::sql::error::{Code, SqlError};
use crate::sql::statement::{Kind, Name, Statement};

impl Catalog {
    /// A view's name is one of a relation and of what runs: neither may be there.
    pub(super) fn check_both_spaces(&self, kind: Kind, name: &Name) -> Result<(), SqlError> {
        let other = match kind {
            Kind::View => self.tasks.get(&name.text),
            Kind::Query | Kind::Alert => self.relations.get(&name.text).filter(|entry| entry.kind == Kind::View),
            Kind::Stream | Kind::Table | Kind::PlainView | Kind::Function | Kind::Savepoint => None,
        };
        match other {
            None => Ok(()),
            Some(other) => Err(SqlError::new(Code::NameTaken, format!("there is already a {} \"{name}\"", other.kind.word()))
                .at(name.place)
                .hint("choose another name: a view has the name of what can be read and of what runs")),
        }
    }

    /// A query writes a stream (a new one is made for a new name), and only columns that lie in the record's value.
    pub(super) fn check_sink(&self, into: &Name, columns: &[Name]) -> Result<(), SqlError> {
        let Some(sink) = self.relation(&into.text) else { return Ok(()) };
        // Whatever the topic is called by.
        if self.is_of_a_view(&sink.topic) {
            return Err(SqlError::new(Code::BadDefinition, format!("\"{into}\" is a view\'s, which its own SELECT alone writes"))
                .at(into.place)
                .hint("write into another stream or table"));
        }
        for column in columns {
            if !sink.written_columns().any(|c| c.name == *column) {
                let known: Vec<&str> = sink.written_columns().map(|c| c.name.text.as_str()).collect();
                return Err(SqlError::no_such("column", &column.text, known.iter().copied())
                    .at(column.place)
                    .note(format!("columns: {}", known.join(", "))));
            }
        }
        Ok(())
    }

    /// Refuses what would write where only the node writes: an alert that no rule has found would look like one.
    pub(super) fn check_written(&self, statement: &Statement) -> Result<(), SqlError> {
        let own = |topic: &TopicName, place| {
            Err(SqlError::new(Code::BadDefinition, format!("topic \"{topic}\" is written by the node alone"))
                .at(place)
                .hint("write into another one"))
        };
        if let Statement::CreateQuery(query) | Statement::CreateView(query) = statement {
            let made = TopicName::new(&query.insert_into.text).ok();
            let topic = self.relation(&query.insert_into.text).map_or(made.as_ref(), |def| Some(&def.topic));
            return match topic.filter(|topic| topic.is_written_by_node_alone()) {
                Some(topic) => own(topic, query.insert_into.place),
                None => Ok(()),
            };
        }
        let Some(def) = StreamDef::of(statement) else { return Ok(()) };
        let others = std::iter::once(&def.dlq_topic).chain(&def.options.late_topic);
        if let Some(topic) = others.into_iter().find(|topic| topic.is_written_by_node_alone()) {
            return own(topic, None);
        }
        let is_written = self.tasks.values().any(|task| task.writes() == Some(def.name.as_str()));
        if is_written && def.topic.is_written_by_node_alone() { own(&def.topic, None) } else { Ok(()) }
    }

    /// Refuses a query that would feed itself through others.
    pub(super) fn check_circle(&self, entry: &Entry, into: &Name) -> Result<(), SqlError> {
        let mut seen: BTreeSet<String> = BTreeSet::new();
        let mut open = self.reads_through(entry.reads());
        while let Some(Name { text: stream, .. }) = open.pop() {
            if stream == into.text {
                return Err(SqlError::new(
                    Code::BadDefinition,
                    format!("{} \"{}\" would feed itself: what it reads is made from \"{into}\"", entry.kind.word(), entry.name),
                )
                .at(into.place)
                .hint("write into another stream"));
            }
            if seen.contains(&stream) {
                continue;
            }
            for task in self.all_tasks().filter(|t| (t.kind, &t.name) != (entry.kind, &entry.name) && t.writes() == Some(stream.as_str())) {
                open.extend(self.reads_through(task.reads()));
            }
            seen.insert(stream);
        }
        Ok(())
    }

    /// Refuses a view that would stand for itself, or with which a query would feed itself.
    pub(super) fn check_view_circle(&self, view: &Entry) -> Result<(), SqlError> {
        let (mut seen, mut open): (BTreeSet<&str>, Vec<&Name>) = (BTreeSet::new(), view.reads().iter().collect());
        while let Some(read) = open.pop() {
            if read.text == view.name {
                return Err(SqlError::new(Code::BadDefinition, format!("view \"{}\" would stand for itself", view.name))
                    .hint("a view is a name for a query's text: it cannot repeat itself"));
            }
            if seen.insert(&read.text)
                && let Some(other) = self.get(Kind::PlainView, &read.text)
            {
                open.extend(other.reads());
            }
        }
        if self.get(Kind::PlainView, &view.name).is_none() {
            return Ok(());
        }
        let mut tried = self.clone();
        tried.relations.insert(view.name.clone(), Arc::new(view.clone()));
        for user in tried.running_users(view) {
            if let Statement::CreateQuery(query) | Statement::CreateView(query) = &*user.statement {
                tried.check_circle(user, &query.insert_into).map_err(|error| SqlError { place: None, ..error })?;
            }
        }
        Ok(())
    }
}
