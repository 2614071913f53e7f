//! What has been created: streams and tables, queries and alerts, who uses whom, and how it is kept.
//!
//! Owns [`Catalog`], plain values without IO: a change is first checked ([`Catalog::create`], [`Catalog::drop_object`],
//! [`Catalog::pause`] give a [`Change`]), then written to topic `__catalog` by the engine ([`Change::record`]), then
//! applied ([`Catalog::apply`]). At the start the records are [replayed](Catalog::replay). Always: what is in here
//! parses, and whatever a query or alert reads is in here too.
//!
//! Streams, tables and views share one space of names, queries and alerts another: a query may be called like the
//! stream it writes. A view is both, what can be read and what runs, and its name is taken in both. Functions have a third, savepoints a
//! fourth.

mod checks;
mod record;
mod same;
mod savepoint;
mod stream;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

pub use record::{CATALOG_TOPIC, CatalogRecord, RecordError, ViewDef};
pub use same::same_text;
pub use savepoint::{OriginDef, SAVEPOINT_FORMAT, SavedPlace, SavepointDef};
pub use stream::StreamDef;

use super::error::{Code, Place, SqlError, did_you_mean};
use super::inline::{self, Views};
use super::macros::{self, Functions};
use super::parse::{parse_statement, relations};
use super::statement::{CreateFunction, DropObject, Kind, Name, Parsed, Select, Statement};
use crate::record::TopicName;
use crate::time::Timestamp;

/// One thing that was created.
#[derive(Clone, Debug)]
pub struct Entry {
    /// Stream, table, query or alert.
    pub kind: Kind,
    /// Its name.
    pub name: String,
    /// The statement as its user wrote it.
    pub text: String,
    /// Counts from 1, one up with each replacement.
    pub version: u64,
    /// When this version was created.
    pub created: Timestamp,
    /// Whether a query or alert was told to pause.
    pub paused: bool,
    /// The statement.
    pub statement: Arc<Statement>,
    /// For a stream, table or view: what it is made of.
    pub stream: Option<Arc<StreamDef>>,
    /// For a view: what its results are.
    pub view: Option<Arc<ViewDef>>,
    /// For a savepoint: what it holds.
    pub savepoint: Option<Arc<SavepointDef>>,
    /// For a query or alert: the savepoint that its tasks begin from where they have not yet.
    pub origin: Option<Arc<OriginDef>>,
}

impl Entry {
    /// The streams and tables it reads.
    #[must_use]
    pub fn reads(&self) -> &[Name] {
        match &*self.statement {
            Statement::CreateQuery(q) | Statement::CreateView(q) => &q.select.reads,
            Statement::CreateAlert(a) => &a.select.reads,
            Statement::CreatePlainView(v) => &v.select.reads,
            _ => &[],
        }
    }

    /// The stream it writes.
    #[must_use]
    pub fn writes(&self) -> Option<&str> {
        match &*self.statement {
            Statement::CreateQuery(q) | Statement::CreateView(q) => Some(&q.insert_into.text),
            _ => None,
        }
    }

    /// The same as a view whose results were found to be this.
    pub fn with_view(&self, view: ViewDef) -> Result<Self, SqlError> {
        let results = parse_statement(&view.results)?.statement;
        let stream = StreamDef::of_view(&results, view.key.as_deref()).map(Arc::new);
        Ok(Self { stream, view: Some(Arc::new(view)), ..self.clone() })
    }

    /// Whom its tasks and checkpoints belong to: where a query has one task over all partitions, another than where each
    /// partition has one. What an alert remembers is its own in either case.
    #[must_use]
    pub fn owner(&self, is_merged: bool) -> String {
        let how = if is_merged && self.kind != Kind::Alert { "-merged" } else { "" };
        format!("{}{how}.{}", self.kind.word(), self.name)
    }

    /// The names that its tasks have where it runs in two phases.
    #[must_use]
    pub fn phase_owners(&self) -> [String; 2] {
        ["parts", "groups"].map(|phase| format!("{}-{phase}.{}", self.kind.word(), self.name))
    }

    /// The function it is.
    #[must_use]
    pub fn function(&self) -> Option<&CreateFunction> {
        match &*self.statement {
            Statement::CreateFunction(function) => Some(function),
            _ => None,
        }
    }

    /// The functions that it calls, whoever made them.
    fn calls(&self) -> BTreeSet<String> {
        match &*self.statement {
            Statement::CreateQuery(q) | Statement::CreateView(q) => macros::calls(&q.select.query),
            Statement::CreateAlert(a) => macros::calls(&a.select.query),
            Statement::CreatePlainView(v) => macros::calls(&v.select.query),
            Statement::CreateFunction(f) => macros::calls(f.body.as_ref()),
            _ => BTreeSet::new(),
        }
    }

    /// Whether it runs.
    #[must_use]
    pub const fn is_task(&self) -> bool {
        matches!(self.kind, Kind::Query | Kind::Alert | Kind::View)
    }
}

/// What to do where the name is taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Existing {
    /// Go by what the statement says: OR REPLACE, IF NOT EXISTS, else an error.
    AsWritten,
    /// Replace it, as a changed query file does, unless the statement says IF NOT EXISTS.
    Replace,
}

/// A change that was checked and not made yet.
#[derive(Clone, Debug)]
pub enum Change {
    /// Something new.
    Create(Arc<Entry>),
    /// A new version of what is there.
    Replace {
        /// What is there.
        old: Arc<Entry>,
        /// What takes its place.
        new: Arc<Entry>,
    },
    /// The same is there already.
    Unchanged(Arc<Entry>),
    /// Another of this name is there, and IF NOT EXISTS leaves it.
    Left(Arc<Entry>),
    /// It goes.
    Drop(Arc<Entry>),
    /// There is nothing to drop, and IF EXISTS does not mind.
    Absent,
    /// It is paused or resumed.
    Pause(Arc<Entry>),
}

impl Change {
    /// What to write to [`CATALOG_TOPIC`]; `None` where nothing changes.
    #[must_use]
    pub fn record(&self) -> Option<CatalogRecord> {
        match self {
            Self::Create(entry) | Self::Replace { new: entry, .. } | Self::Pause(entry) => Some(CatalogRecord::of(entry)),
            Self::Drop(entry) => Some(CatalogRecord::tombstone(entry)),
            Self::Unchanged(_) | Self::Left(_) | Self::Absent => None,
        }
    }

    /// What the user is told.
    #[must_use]
    pub fn message(&self) -> String {
        let what = |entry: &Entry| format!("{} \"{}\"", entry.kind.word(), entry.name);
        match self {
            Self::Create(entry) => format!("created {}", what(entry)),
            Self::Replace { new, .. } => format!("replaced {} (version {})", what(new), new.version),
            Self::Unchanged(entry) => format!("{} is unchanged", what(entry)),
            Self::Left(entry) => format!("{} exists and was left as it is", what(entry)),
            Self::Drop(entry) if entry.kind == Kind::View => format!("dropped {} and its topic", what(entry)),
            Self::Drop(entry) if matches!(entry.kind, Kind::Stream | Kind::Table) => format!("dropped {}; its topic is kept", what(entry)),
            Self::Drop(entry) => format!("dropped {}", what(entry)),
            Self::Absent => "there was nothing to drop".to_owned(),
            Self::Pause(entry) => format!("{} {}", if entry.paused { "paused" } else { "resumed" }, what(entry)),
        }
    }
}

/// What a record of the catalogue has changed.
#[derive(Clone, Debug, Default)]
pub struct TakenIn {
    /// What was there under its name.
    pub old: Option<Arc<Entry>>,
    /// What is there now.
    pub new: Option<Arc<Entry>>,
}

/// Everything that was created.
#[derive(Clone, Debug, Default)]
pub struct Catalog {
    relations: BTreeMap<String, Arc<Entry>>,
    tasks: BTreeMap<String, Arc<Entry>>,
    functions: BTreeMap<String, Arc<Entry>>,
    savepoints: BTreeMap<String, Arc<Entry>>,
}

impl Functions for Catalog {
    fn function(&self, name: &str) -> Option<&CreateFunction> {
        self.functions.get(name).and_then(|entry| entry.function())
    }
}

impl Views for Catalog {
    fn view_text(&self, name: &str) -> Option<&str> {
        self.relations.get(name).filter(|entry| entry.kind == Kind::PlainView).map(|entry| entry.text.as_str())
    }
}

impl Catalog {
    /// An empty one.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Checks a CREATE statement against what is there. Errors name what is missing or in the way.
    pub fn create(&self, parsed: &Parsed, existing: Existing, now: Timestamp) -> Result<Change, SqlError> {
        let Some((kind, name)) = parsed.statement.creates() else {
            return Err(SqlError::new(Code::Internal, "the statement creates nothing"));
        };
        self.check_written(&parsed.statement)?;
        self.check_both_spaces(kind, name)?;
        let (or_replace, if_not_exists) = intent(&parsed.statement);
        let Some(old) = self.space(kind).get(&name.text) else {
            let entry = self.entry(parsed, kind, name, 1, now)?;
            return Ok(Change::Create(entry));
        };
        // A savepoint that was taken before is not the one that somebody asks for by hand.
        let is_anew = kind == Kind::Savepoint && existing == Existing::AsWritten && !if_not_exists;
        if old.kind == kind && !is_anew && same_text(&old.text, &parsed.text) {
            return Ok(Change::Unchanged(Arc::clone(old)));
        }
        if if_not_exists {
            return Ok(Change::Left(Arc::clone(old)));
        }
        let taken = |hint: String| {
            SqlError::new(Code::NameTaken, format!("there is already a {} \"{name}\"", old.kind.word())).at(name.place).hint(hint)
        };
        if old.kind != kind {
            return Err(taken(format!("choose another name, or DROP {} {name} first", old.kind.word().to_uppercase())));
        }
        if kind == Kind::Savepoint {
            return Err(taken(format!("choose another name, or DROP SAVEPOINT {name} first")));
        }
        if existing == Existing::AsWritten && !or_replace {
            let upper = kind.word().to_uppercase();
            return Err(taken(format!("write CREATE OR REPLACE {upper}, or IF NOT EXISTS to leave it")));
        }
        let mut entry = self.entry(parsed, kind, name, old.version + 1, now)?;
        let new = Arc::make_mut(&mut entry);
        (new.paused, new.origin) = (old.paused, old.origin.clone());
        Ok(Change::Replace { old: Arc::clone(old), new: entry })
    }

    /// Checks a DROP: refused while it is used, the users named.
    pub fn drop_object(&self, drop: &DropObject) -> Result<Change, SqlError> {
        let Some(entry) = self.space(drop.kind).get(&drop.name.text).filter(|e| e.kind.is_meant_by(drop.kind)) else {
            if drop.if_exists {
                return Ok(Change::Absent);
            }
            return Err(self.missing(drop.kind, &drop.name));
        };
        let users = self.users(entry);
        if users.is_empty() {
            return Ok(Change::Drop(Arc::clone(entry)));
        }
        let named = users.iter().map(|u| format!("{} \"{}\"", u.kind.word(), u.name)).collect::<Vec<_>>();
        let first = &users[0];
        Err(SqlError::new(Code::InUse, format!("{} \"{}\" is used by {}", entry.kind.word(), entry.name, named.join(", ")))
            .at(drop.name.place)
            .hint(format!("DROP {} {} first", first.kind.word().to_uppercase(), first.name)))
    }

    /// Checks a PAUSE or RESUME.
    pub fn pause(&self, kind: Kind, name: &Name, paused: bool) -> Result<Change, SqlError> {
        let entry = self.space(kind).get(&name.text).filter(|e| e.kind == kind).ok_or_else(|| self.missing(kind, name))?;
        if entry.paused == paused {
            return Ok(Change::Unchanged(Arc::clone(entry)));
        }
        let mut entry = Arc::clone(entry);
        Arc::make_mut(&mut entry).paused = paused;
        Ok(Change::Pause(entry))
    }

    /// Makes a change that was checked, once it is durable.
    pub fn apply(&mut self, change: &Change) {
        match change {
            Change::Create(entry) | Change::Replace { new: entry, .. } | Change::Pause(entry) => {
                self.space_mut(entry.kind).insert(entry.name.clone(), Arc::clone(entry));
            }
            Change::Drop(entry) => {
                self.space_mut(entry.kind).remove(&entry.name);
            }
            Change::Unchanged(_) | Change::Left(_) | Change::Absent => {}
        }
    }

    /// Takes one record of [`CATALOG_TOPIC`], in the topic's order. An error leaves the catalogue as it was.
    pub fn replay(&mut self, key: &[u8], value: Option<&[u8]>) -> Result<TakenIn, RecordError> {
        let (kind, name) = record::read_key(key)?;
        let Some(value) = value else {
            return Ok(TakenIn { old: self.space_mut(kind).remove(&name), new: None });
        };
        let record = record::read_value(value)?;
        let parsed =
            parse_statement(&record.text).map_err(|error| RecordError::Statement { name: name.clone(), error: Box::new(error) })?;
        let right = parsed.statement.creates().is_some_and(|(k, n)| k == kind && n.text == name);
        if !right {
            return Err(RecordError::Mismatch { name });
        }
        let mut entry = Entry {
            kind,
            name: name.clone(),
            text: record.text,
            version: record.version,
            created: record.created,
            paused: record.paused,
            stream: StreamDef::of(&parsed.statement).map(Arc::new),
            statement: Arc::new(parsed.statement),
            view: None,
            savepoint: record.savepoint.map(Arc::new),
            origin: record.origin.map(Arc::new),
        };
        if kind == Kind::Savepoint && entry.savepoint.is_none() {
            return Err(RecordError::Value(format!("savepoint \"{name}\" does not say what it holds")));
        }
        if kind == Kind::View {
            let view = record.view.ok_or_else(|| RecordError::Value(format!("view \"{name}\" does not say what its results are")))?;
            entry = entry.with_view(view).map_err(|error| RecordError::Statement { name: name.clone(), error: Box::new(error) })?;
        }
        let new = Arc::new(entry);
        Ok(TakenIn { old: self.space_mut(kind).insert(name, Arc::clone(&new)), new: Some(new) })
    }

    /// The stream or table of a name.
    #[must_use]
    pub fn relation(&self, name: &str) -> Option<&Arc<StreamDef>> {
        self.relations.get(name).and_then(|e| e.stream.as_ref())
    }

    /// The stream or table of a name, or an error with a suggestion.
    pub fn relation_or_error(&self, name: &Name) -> Result<&Arc<StreamDef>, SqlError> {
        self.relation(&name.text).ok_or_else(|| self.missing(Kind::Stream, name))
    }

    /// The entry of a kind and name.
    #[must_use]
    pub fn get(&self, kind: Kind, name: &str) -> Option<&Arc<Entry>> {
        self.space(kind).get(name).filter(|e| e.kind == kind)
    }

    /// The entry of a name, of any kind: a stream or table before a query or alert.
    pub fn find(&self, name: &Name) -> Result<&Arc<Entry>, SqlError> {
        let found = self.relations.get(&name.text).or_else(|| self.tasks.get(&name.text));
        found.ok_or_else(|| {
            let known = self.relations.keys().chain(self.tasks.keys()).map(String::as_str);
            SqlError::new(Code::NoSuchName, format!("there is no stream, table, view, query or alert \"{name}\""))
                .at(name.place)
                .hint_opt(did_you_mean(&name.text, known))
        })
    }

    /// The entry that SHOW CREATE and the like mean: of the kind that was said, else of any.
    pub fn find_kind(&self, kind: Option<Kind>, name: &Name) -> Result<&Arc<Entry>, SqlError> {
        match kind {
            None => self.find(name),
            Some(kind) => {
                let found = self.space(kind).get(&name.text).filter(|e| e.kind.is_meant_by(kind));
                found.ok_or_else(|| self.missing(kind, name))
            }
        }
    }

    /// All of a kind, by name.
    pub fn all(&self, kind: Kind) -> impl Iterator<Item = &Arc<Entry>> {
        self.space(kind).values().filter(move |e| e.kind == kind)
    }

    /// The same SELECT with their queries in place of the views that are names of one, and an expression for each call of a function
    /// that was made here. What it reads is then what those read.
    pub fn expanded(&self, select: &Select) -> Result<Select, SqlError> {
        let mut select = select.clone();
        let used = inline::expand(&mut select.query, self)?;
        if !self.functions.is_empty() {
            macros::expand(&mut select.query, self).map_err(|error| inline::as_written(error, &used))?;
        }
        if !used.is_empty() {
            let written = std::mem::take(&mut select.reads);
            select.reads = relations(&select.query);
            for read in &mut select.reads {
                // What is read through a view is read where the view is.
                read.place = read.place.filter(|_| written.contains(read)).or_else(|| used.first().and_then(|view| view.name.place));
            }
        }
        Ok(select)
    }

    /// An error that planning the expanded SELECT gave, as the writer of this one is to see it: where it is about what a view says, it
    /// points into the view's text. `alone` says what is wrong with a SELECT by itself.
    pub fn as_written(&self, select: &Select, error: SqlError, alone: &dyn Fn(&Select) -> Option<SqlError>) -> SqlError {
        let Ok(used) = inline::expand(&mut select.query.clone(), self) else { return error };
        if used.is_empty() || error.place.is_some() {
            return inline::as_written(error, &used);
        }
        for view in select.reads.iter().filter_map(|read| used.iter().find(|view| view.name == *read)) {
            let Some(Statement::CreatePlainView(of)) = self.get(Kind::PlainView, &view.name.text).map(|entry| &*entry.statement) else {
                continue;
            };
            let found = self.expanded(&of.select).ok().and_then(|body| alone(&body));
            if let Some(found) = found.filter(|found| found.message == error.message) {
                return inline::inside(self.as_written(&of.select, found, alone), view);
            }
        }
        error
    }

    /// The streams, tables and materialized views that a SELECT reads, itself or through views that are names of a query.
    #[must_use]
    pub fn reads_through(&self, reads: &[Name]) -> Vec<Name> {
        let (mut found, mut seen): (Vec<Name>, BTreeSet<&str>) = (Vec::new(), BTreeSet::new());
        let mut open: Vec<(&Name, Option<Place>)> = reads.iter().rev().map(|read| (read, read.place)).collect();
        while let Some((read, place)) = open.pop() {
            if !seen.insert(read.text.as_str()) {
                continue;
            }
            match self.get(Kind::PlainView, &read.text) {
                Some(view) => open.extend(view.reads().iter().rev().map(|read| (read, place))),
                None => found.push(Name { text: read.text.clone(), place }),
            }
        }
        found
    }

    /// Whether something of a name can be read.
    fn check_readable(&self, name: &Name) -> Result<(), SqlError> {
        if self.get(Kind::PlainView, &name.text).is_some() { Ok(()) } else { self.relation_or_error(name).map(|_| ()) }
    }

    /// The functions, queries, views and alerts that call a function, those first that others call.
    fn callers(&self, of: &str) -> Vec<&Arc<Entry>> {
        let all = self.functions.values().chain(self.all(Kind::PlainView)).chain(self.all_tasks());
        all.filter(|entry| entry.calls().contains(of)).collect()
    }

    /// What runs and uses something, itself or through functions and views that stand for a text.
    #[must_use]
    pub fn running_users(&self, of: &Entry) -> Vec<&Arc<Entry>> {
        let mut seen: BTreeSet<(Kind, &str)> = BTreeSet::new();
        let mut found = Vec::new();
        let mut open = self.users(of);
        while let Some(user) = open.pop() {
            if !seen.insert((user.kind, user.name.as_str())) {
                continue;
            }
            if user.is_task() {
                found.push(user);
            } else {
                open.extend(self.users(user));
            }
        }
        found.sort_by_key(|user| (user.kind != Kind::View, &user.name));
        found
    }

    /// The queries, views and alerts that read or write a stream, table or view; of a function, who calls it.
    #[must_use]
    pub fn users(&self, of: &Entry) -> Vec<&Arc<Entry>> {
        if of.kind == Kind::Function {
            return self.callers(&of.name);
        }
        if !matches!(of.kind, Kind::Stream | Kind::Table | Kind::View | Kind::PlainView) {
            return Vec::new();
        }
        let uses = |t: &&Arc<Entry>| t.writes() == Some(of.name.as_str()) || t.reads().iter().any(|r| r.text == of.name);
        let all = self.all(Kind::PlainView).chain(self.all_tasks());
        all.filter(|t| (t.kind, &t.name) != (of.kind, &of.name)).filter(uses).collect()
    }

    /// All that runs: views, then queries and alerts.
    pub fn all_tasks(&self) -> impl Iterator<Item = &Arc<Entry>> {
        self.all(Kind::View).chain(self.tasks.values())
    }

    /// The relations whose topic this is.
    pub fn over_topic<'a>(&'a self, topic: &'a str) -> impl Iterator<Item = &'a Arc<StreamDef>> {
        self.relations.values().filter_map(|e| e.stream.as_ref()).filter(move |s| s.topic.as_str() == topic)
    }

    fn entry(&self, parsed: &Parsed, kind: Kind, name: &Name, version: u64, created: Timestamp) -> Result<Arc<Entry>, SqlError> {
        let entry = Entry {
            kind,
            name: name.text.clone(),
            text: parsed.text.clone(),
            version,
            created,
            paused: false,
            stream: StreamDef::of(&parsed.statement).map(Arc::new),
            statement: Arc::new(parsed.statement.clone()),
            view: None,
            savepoint: None,
            origin: None,
        };
        if let Statement::CreateSavepoint(savepoint) = &*entry.statement
            && self.get(savepoint.kind, &savepoint.of.text).is_none()
        {
            return Err(self.missing(savepoint.kind, &savepoint.of));
        }
        if let Some(stream) = &entry.stream {
            // What the decoder would refuse is refused now. The count of partitions is of no matter here.
            stream.schema(1).map_err(|e| e.at(name.place))?;
        }
        for read in entry.reads() {
            self.check_readable(read)?;
        }
        if kind == Kind::PlainView {
            self.check_view_circle(&entry)?;
        }
        if let Statement::CreateFunction(function) = &*entry.statement {
            let mut tried = self.clone();
            tried.functions.insert(entry.name.clone(), Arc::new(entry.clone()));
            macros::check(function, &tried)?;
        }
        if let Statement::CreateQuery(query) | Statement::CreateView(query) = &*entry.statement {
            if kind == Kind::Query {
                self.check_sink(&query.insert_into, &query.insert_columns)?;
            }
            self.check_circle(&entry, &query.insert_into)?;
        }
        Ok(Arc::new(entry))
    }

    /// Whether a topic is the one that a view keeps its rows in.
    #[must_use]
    pub fn is_of_a_view(&self, topic: &TopicName) -> bool {
        self.all(Kind::View).filter_map(|view| view.stream.as_ref()).any(|view| view.topic == *topic)
    }

    /// "No such": with the kind it has instead, or a suggestion.
    fn missing(&self, kind: Kind, name: &Name) -> SqlError {
        let other = self.relations.get(&name.text).into_iter().chain(self.tasks.get(&name.text)).find(|e| e.kind != kind);
        if let Some(other) = other {
            let what = match other.kind {
                Kind::Alert => "an alert".to_owned(),
                Kind::PlainView => "a view that is not materialized: a name for a query's text, of which nothing runs".to_owned(),
                kind => format!("a {}", kind.word()),
            };
            let message = if other.kind == Kind::PlainView && kind == Kind::View { "materialized view" } else { kind.word() };
            return SqlError::new(Code::NoSuchName, format!("there is no {message} \"{name}\""))
                .at(name.place)
                .hint(format!("\"{name}\" is {what}"));
        }
        let known = self.space(kind).values().map(|e| e.name.as_str());
        let hint = did_you_mean(&name.text, known).unwrap_or_else(|| match kind {
            Kind::Stream | Kind::Table => "SHOW STREAMS lists what there is".to_owned(),
            Kind::Query => "SHOW QUERIES lists what there is".to_owned(),
            Kind::Alert => "SHOW ALERTS lists what there is".to_owned(),
            Kind::View | Kind::PlainView => "SHOW VIEWS lists what there is".to_owned(),
            Kind::Function => "SHOW FUNCTIONS lists what there is".to_owned(),
            Kind::Savepoint => "SHOW SAVEPOINTS lists what there is".to_owned(),
        });
        SqlError::new(Code::NoSuchName, format!("there is no {} \"{name}\"", kind.word())).at(name.place).hint(hint)
    }

    const fn space(&self, kind: Kind) -> &BTreeMap<String, Arc<Entry>> {
        match kind {
            Kind::Stream | Kind::Table | Kind::View | Kind::PlainView => &self.relations,
            Kind::Query | Kind::Alert => &self.tasks,
            Kind::Function => &self.functions,
            Kind::Savepoint => &self.savepoints,
        }
    }

    const fn space_mut(&mut self, kind: Kind) -> &mut BTreeMap<String, Arc<Entry>> {
        match kind {
            Kind::Stream | Kind::Table | Kind::View | Kind::PlainView => &mut self.relations,
            Kind::Query | Kind::Alert => &mut self.tasks,
            Kind::Function => &mut self.functions,
            Kind::Savepoint => &mut self.savepoints,
        }
    }
}

/// Whether OR REPLACE and IF NOT EXISTS were said.
fn intent(statement: &Statement) -> (bool, bool) {
    match statement {
        Statement::CreateStream(s) => (s.or_replace, s.if_not_exists),
        Statement::CreateTable(t) => (t.or_replace, t.if_not_exists),
        Statement::CreateQuery(q) | Statement::CreateView(q) => (q.or_replace, q.if_not_exists),
        Statement::CreateAlert(a) => (a.or_replace, a.if_not_exists),
        Statement::CreatePlainView(v) => (v.or_replace, v.if_not_exists),
        Statement::CreateFunction(f) => (f.or_replace, f.if_not_exists),
        Statement::CreateSavepoint(s) => (false, s.if_not_exists),
        _ => (false, false),
    }
}

#[cfg(test)]
mod tests;
