//! Savepoints as the catalogue knows them: what each is of and where it lies, and which one a query or alert begins from.
//!
//! What a savepoint holds lies in a topic of its own. Always: the topic of a savepoint is named in the catalogue before it is made and
//! until it is gone, and the savepoint counts only while its record says that it is whole: so a crash leaves either a savepoint or a name
//! under which somebody cleans up.

use std::collections::BTreeMap;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use super::{Catalog, Change, Entry};
use crate::sql::error::{Code, SqlError, did_you_mean};
use crate::sql::options::Start;
use crate::sql::statement::{Name, Restore, Statement};
use crate::time::Timestamp;

/// How savepoints are written by this program; it goes up when an older program could not read one.
pub const SAVEPOINT_FORMAT: u32 = 1;

/// What a savepoint's statement does not say by itself.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct SavepointDef {
    /// Whether all of it is there. Else it is being made, or going, or was left by a crash.
    pub whole: bool,
    /// Whose checkpoint its topic is called.
    pub owner: String,
    /// How it is written.
    pub format: u32,
    /// The version of the program that wrote it.
    pub program: String,
    /// The statement of what it is of.
    pub text: String,
    /// The version of that.
    pub version: u64,
    /// How many tasks it holds.
    pub tasks: i32,
    /// Whether its one task merged all partitions.
    pub merged: bool,
    /// Tells the state of its plan from another's.
    pub fingerprint: String,
    /// The plan, as EXPLAIN shows it.
    pub plan: String,
    /// The topic of each source, in order.
    pub topics: Vec<String>,
    /// Where it stood in each partition of what it read.
    pub places: Vec<SavedPlace>,
    /// How many bytes it has.
    pub bytes: u64,
}

/// Where a task of a savepoint stood in one partition.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SavedPlace {
    /// Which task.
    pub task: i32,
    /// The topic.
    pub topic: String,
    /// The partition.
    pub partition: i32,
    /// The next offset to read.
    pub position: i64,
    /// Its watermark in milliseconds, where it had one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub watermark: Option<i64>,
}

impl SavepointDef {
    /// How many partitions of each topic it stood in, and how many records lay before it there: `vitals 4000 in 4 partitions`. Where
    /// several tasks read the same partition, the one counts that had come least far.
    #[must_use]
    pub fn positions(&self) -> String {
        let mut topics: BTreeMap<&str, BTreeMap<i32, i64>> = BTreeMap::new();
        for place in &self.places {
            let position = topics.entry(&place.topic).or_default().entry(place.partition).or_insert(place.position);
            *position = (*position).min(place.position);
        }
        let line = |(topic, partitions): (&&str, &BTreeMap<i32, i64>)| match partitions.len() {
            1..=4 => {
                let each = partitions.iter().map(|(partition, position)| format!("{partition}:{position}"));
                format!("{topic} {}", each.collect::<Vec<_>>().join(" "))
            }
            count => format!("{topic} offsets {} in all, {count} partitions", partitions.values().sum::<i64>()),
        };
        topics.iter().map(line).collect::<Vec<_>>().join(", ")
    }
}

/// The savepoint that the tasks of a query or alert begin from.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct OriginDef {
    /// Its name.
    pub savepoint: String,
    /// Whose checkpoint its topic is called.
    pub owner: String,
    /// How many tasks it holds.
    pub tasks: i32,
    /// Whether its one task merged all partitions.
    pub merged: bool,
    /// Tells this beginning from every other one.
    pub mark: String,
}

impl OriginDef {
    fn new(savepoint: &Entry, def: &SavepointDef, version: u64, now: Timestamp) -> Self {
        Self {
            savepoint: savepoint.name.clone(),
            owner: def.owner.clone(),
            tasks: def.tasks,
            merged: def.merged,
            // A savepoint that is taken again under its name has another owner.
            mark: format!("{}@{version}.{}", def.owner, now.millis()),
        }
    }
}

impl Entry {
    /// The same as a savepoint that holds this.
    #[must_use]
    pub fn with_savepoint(&self, savepoint: SavepointDef) -> Arc<Self> {
        Arc::new(Self { savepoint: Some(Arc::new(savepoint)), ..self.clone() })
    }

    /// Where its statement says that it begins.
    #[must_use]
    pub fn start(&self) -> Option<&Start> {
        match &*self.statement {
            Statement::CreateQuery(q) | Statement::CreateView(q) => Some(&q.options.start),
            Statement::CreateAlert(a) => Some(&a.options.start),
            _ => None,
        }
    }
}

impl Catalog {
    /// A savepoint that is whole: as it is written, else in small letters, as a name without quotes is kept.
    pub fn savepoint(&self, name: &Name) -> Result<(&Arc<Entry>, &Arc<SavepointDef>), SqlError> {
        let whole = |name: &str| {
            let entry = self.savepoints.get(name)?;
            Some((entry, entry.savepoint.as_ref().filter(|def| def.whole)?))
        };
        whole(&name.text).or_else(|| whole(&name.text.to_ascii_lowercase())).ok_or_else(|| {
            let known = self.savepoints().map(|(entry, _)| entry.name.as_str());
            let hint = did_you_mean(&name.text, known).unwrap_or_else(|| "SHOW SAVEPOINTS lists what there is".to_owned());
            SqlError::new(Code::NoSuchName, format!("there is no savepoint \"{name}\"")).at(name.place).hint(hint)
        })
    }

    /// Those that are whole, by name.
    pub fn savepoints(&self) -> impl Iterator<Item = (&Arc<Entry>, &Arc<SavepointDef>)> {
        self.savepoints.values().filter_map(|entry| Some((entry, entry.savepoint.as_ref().filter(|def| def.whole)?)))
    }

    /// Those that are not: being made, going, or left by a crash.
    #[must_use]
    pub fn torn_savepoints(&self) -> Vec<Arc<Entry>> {
        let is_torn = |entry: &&Arc<Entry>| entry.savepoint.as_ref().is_none_or(|def| !def.whole);
        self.savepoints.values().filter(is_torn).cloned().collect()
    }

    /// What a query or alert that was just checked begins from, where its statement names a savepoint that the version before, if there
    /// was one, has not begun from: who changes a statement that names one goes on where it is.
    pub fn origin_of(&self, entry: &Entry, before: Option<&OriginDef>, now: Timestamp) -> Result<Option<OriginDef>, SqlError> {
        let Some(Start::Savepoint(name)) = entry.start() else { return Ok(None) };
        let is_gone = self.savepoint(&Name::new(name)).is_err();
        if is_gone && before.is_some_and(|before| before.savepoint == *name || before.savepoint == name.to_ascii_lowercase()) {
            return Ok(None);
        }
        let place = match &*entry.statement {
            Statement::CreateQuery(q) => q.options.given.place("start"),
            Statement::CreateAlert(a) => a.options.given.place("start"),
            _ => None,
        };
        let (savepoint, def) = self.savepoint(&Name { text: name.clone(), place })?;
        Ok(before.is_none_or(|before| before.owner != def.owner).then(|| OriginDef::new(savepoint, def, entry.version, now)))
    }

    /// Checks a RESTORE: the same statement begins once more, from a savepoint.
    pub fn restore(&self, restore: &Restore, now: Timestamp) -> Result<Change, SqlError> {
        let old = self.get(restore.kind, &restore.name.text).ok_or_else(|| self.missing(restore.kind, &restore.name))?;
        let (savepoint, def) = self.savepoint(&restore.savepoint)?;
        let version = old.version + 1;
        let origin = OriginDef::new(savepoint, def, version, now);
        let new = Entry { version, origin: Some(Arc::new(origin)), ..Entry::clone(old) };
        Ok(Change::Replace { old: Arc::clone(old), new: Arc::new(new) })
    }

    /// What runs and was told to begin from this savepoint.
    pub fn begun_from<'a>(&'a self, def: &'a SavepointDef) -> impl Iterator<Item = &'a Arc<Entry>> {
        self.all_tasks().filter(|entry| entry.origin.as_ref().is_some_and(|origin| origin.owner == def.owner))
    }
}
