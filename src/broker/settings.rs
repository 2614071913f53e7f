//! Settings changed while the node runs: of topics, of the broker and of groups.
//!
//! A topic's settings are part of its record in `__topics`; those of the broker and of groups are records of the
//! internal topic `__configs`, one for each that has any. Always: a change is checked as a whole before it is written,
//! and is in effect, and durable, when the call returns. Changes happen one at a time. Called by `server`.

use std::collections::BTreeMap;
use std::sync::Arc;

use parking_lot::RwLock;

use super::Broker;
use super::broker_configs::{check_group, dynamic_kind, group_kind, list_default};
use super::catalogue::internal_id;
use super::config::{DynamicConfigs, LiveConfig};
use super::config_spec::{ConfigKind, DescribedConfig, changed_list};
use super::error::BrokerError;
use super::group::GroupConfig;
use super::journal::Journal;
use super::topic_config::topic_config_spec;
use crate::log::Log;
use crate::record::TopicName;
use crate::time::Clock;

/// What has settings that are not a topic's.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum ConfigOwner {
    /// Every broker.
    Cluster,
    /// This broker.
    Broker,
    /// A group.
    Group(String),
}

impl ConfigOwner {
    fn key(&self) -> Vec<u8> {
        match self {
            Self::Cluster => b"cluster".to_vec(),
            Self::Broker => b"broker".to_vec(),
            Self::Group(name) => [b"group/", name.as_bytes()].concat(),
        }
    }

    fn read(key: &[u8]) -> Option<Self> {
        match key {
            b"cluster" => Some(Self::Cluster),
            b"broker" => Some(Self::Broker),
            other => Some(Self::Group(String::from_utf8(other.strip_prefix(b"group/")?.to_vec()).ok()?)),
        }
    }

    fn kind(&self, name: &str) -> Option<ConfigKind> {
        match self {
            Self::Cluster | Self::Broker => dynamic_kind(name),
            Self::Group(_) => group_kind(name),
        }
    }
}

/// What to do to one setting.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ConfigChange {
    /// It is this from now on.
    Set(String),
    /// It is what it would be if nobody had set it.
    Remove,
    /// Its list has these words too.
    Append(String),
    /// Its list has these words no longer.
    Subtract(String),
}

/// What to do to the settings of one thing.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ConfigEdit {
    /// These, and nothing else, are set.
    Replace(BTreeMap<String, String>),
    /// These change, the others stay.
    Change(Vec<(String, ConfigChange)>),
}

impl ConfigEdit {
    /// What is set afterwards. `default` tells what a list grows from where nobody has set it: in Kafka that is its own
    /// default, whatever the broker has been given for all.
    fn apply(
        self,
        set: &BTreeMap<String, String>,
        kind: impl Fn(&str) -> Option<ConfigKind>,
        default: impl Fn(&str) -> Option<&'static str>,
    ) -> Result<BTreeMap<String, String>, BrokerError> {
        let changes = match self {
            Self::Replace(all) => return Ok(all),
            Self::Change(changes) => changes,
        };
        let mut set = set.clone();
        for (name, change) in changes {
            let (words, append) = match change {
                ConfigChange::Set(value) => {
                    set.insert(name, value);
                    continue;
                }
                ConfigChange::Remove => {
                    set.remove(&name);
                    continue;
                }
                ConfigChange::Append(words) => (words, true),
                ConfigChange::Subtract(words) => (words, false),
            };
            if kind(&name) != Some(ConfigKind::List) {
                return Err(BrokerError::InvalidConfig(format!("{name} is not a list, to which words could be added or taken away")));
            }
            let before = set.get(&name).map(String::as_str).or_else(|| default(&name)).unwrap_or_default();
            let after = changed_list(before, &words, append);
            set.insert(name, after);
        }
        Ok(set)
    }
}

/// The settings of the broker and of groups.
pub(super) struct Settings {
    live: Arc<LiveConfig>,
    journal: Arc<Journal>,
    set: RwLock<BTreeMap<ConfigOwner, BTreeMap<String, String>>>,
    /// Held across a change, which waits for the disk.
    change: tokio::sync::Mutex<()>,
}

fn to_bytes(set: &BTreeMap<String, String>) -> Vec<u8> {
    serde_json::json!(set).to_string().into_bytes()
}

impl Settings {
    /// Reads them back and puts them into effect. Blocks.
    pub(super) fn open(log: &Arc<Log>, live: Arc<LiveConfig>, clock: Clock) -> Result<Self, BrokerError> {
        let mut set = BTreeMap::new();
        let mut unreadable = 0_u64;
        let journal = Journal::open(log, "__configs", internal_id(b"_configs"), clock, |_, key, value| {
            let Some(owner) = key.and_then(ConfigOwner::read) else {
                unreadable += 1;
                return;
            };
            match value.map(serde_json::from_slice::<BTreeMap<String, String>>) {
                None => drop(set.remove(&owner)),
                Some(Ok(configs)) => drop(set.insert(owner, configs)),
                Some(Err(_)) => unreadable += 1,
            }
        })?;
        if unreadable > 0 {
            tracing::error!(records = unreadable, "records of __configs cannot be read: settings made while the node ran may be lost");
        }
        let settings = Self { live, journal, set: RwLock::new(set), change: tokio::sync::Mutex::default() };
        match settings.live.with(settings.dynamic(None)) {
            Ok(config) => settings.live.set(config),
            // Written by a version that knew other settings: the node runs with what it was started with.
            Err(error) => tracing::error!(%error, "settings made while the node ran are not in effect"),
        }
        Ok(settings)
    }

    pub(super) const fn journal(&self) -> &Arc<Journal> {
        &self.journal
    }

    fn of(&self, owner: &ConfigOwner) -> BTreeMap<String, String> {
        self.set.read().get(owner).cloned().unwrap_or_default()
    }

    /// What is set of the broker, with one part of it as it would be.
    fn dynamic(&self, with: Option<(&ConfigOwner, &BTreeMap<String, String>)>) -> DynamicConfigs {
        let of = |owner: ConfigOwner| match with {
            Some((changed, set)) if *changed == owner => set.clone(),
            _ => self.of(&owner),
        };
        DynamicConfigs::new(of(ConfigOwner::Broker), of(ConfigOwner::Cluster))
    }

    /// Changes them. Answers whether the broker's own settings are others now.
    async fn alter(&self, owner: ConfigOwner, edit: ConfigEdit, only_check: bool) -> Result<bool, BrokerError> {
        let _one = self.change.lock().await;
        let before = self.of(&owner);
        let after = edit.apply(&before, |name| owner.kind(name), list_default)?;
        let config = match owner {
            ConfigOwner::Group(_) => {
                check_group(&after)?;
                None
            }
            ConfigOwner::Cluster | ConfigOwner::Broker => Some(self.live.with(self.dynamic(Some((&owner, &after))))?),
        };
        if only_check || before == after {
            return Ok(false);
        }
        let value = (!after.is_empty()).then(|| to_bytes(&after));
        self.journal.append(&[(owner.key(), value)]).await?;
        tracing::info!(?owner, names = ?changed_names(&before, &after), "settings changed");
        if after.is_empty() {
            self.set.write().remove(&owner);
        } else {
            self.set.write().insert(owner, after);
        }
        let is_broker = config.is_some();
        if let Some(config) = config {
            self.live.set(config);
        }
        Ok(is_broker)
    }

    /// What holds for the groups that do not say otherwise.
    pub(super) fn groups(&self) -> GroupConfig {
        self.live.get().groups()
    }

    /// One setting of a group as a number, where the group sets it.
    pub(super) fn group_number(&self, group: &str, name: &str) -> Option<i64> {
        self.set.read().get(&ConfigOwner::Group(group.to_owned()))?.get(name)?.trim().parse().ok()
    }
}

fn changed_names<'a>(before: &'a BTreeMap<String, String>, after: &'a BTreeMap<String, String>) -> Vec<&'a str> {
    let mut names: Vec<&str> = before.keys().chain(after.keys()).filter(|n| before.get(*n) != after.get(*n)).map(String::as_str).collect();
    names.sort_unstable();
    names.dedup();
    names
}

impl Broker {
    /// Changes the settings of a topic. What concerns the log is in effect at once, retention with its next round.
    pub async fn alter_topic(&self, name: &TopicName, edit: ConfigEdit, only_check: bool) -> Result<(), BrokerError> {
        let kind = |name: &str| topic_config_spec(name).map(|spec| spec.kind);
        let default = |name: &str| topic_config_spec(name).map(|spec| spec.default);
        let apply = |set: &BTreeMap<String, String>| edit.clone().apply(set, kind, default);
        self.catalogue().alter(name, apply, only_check).await
    }

    /// Changes the settings of the broker or of a group.
    pub async fn alter_configs(&self, owner: ConfigOwner, edit: ConfigEdit, only_check: bool) -> Result<(), BrokerError> {
        if self.settings().alter(owner, edit, only_check).await? {
            // The defaults of topics are the broker's.
            self.catalogue().refresh().await?;
        }
        Ok(())
    }

    /// Every setting of a group.
    #[must_use]
    pub fn describe_group_configs(&self, group: &str) -> Vec<DescribedConfig> {
        self.config().describe_group(&self.settings().of(&ConfigOwner::Group(group.to_owned())))
    }

    /// The groups that have settings of their own.
    #[must_use]
    pub fn groups_with_configs(&self) -> Vec<String> {
        let name = |owner: &ConfigOwner| match owner {
            ConfigOwner::Group(name) => Some(name.clone()),
            ConfigOwner::Cluster | ConfigOwner::Broker => None,
        };
        self.settings().set.read().keys().filter_map(name).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::broker::{NewTopic, TestDisk};

    fn name(text: &str) -> TopicName {
        TopicName::new(text).unwrap()
    }

    fn set(pairs: &[(&str, &str)]) -> ConfigEdit {
        ConfigEdit::Change(pairs.iter().map(|(k, v)| ((*k).to_owned(), ConfigChange::Set((*v).to_owned()))).collect())
    }

    fn remove(key: &str) -> ConfigEdit {
        ConfigEdit::Change(vec![(key.to_owned(), ConfigChange::Remove)])
    }

    #[tokio::test]
    async fn a_topics_settings_change_while_it_runs_and_stay_after_a_crash() {
        let disk = TestDisk::default();
        let broker = disk.broker().await;
        let topic = broker.create_topic(NewTopic::named(name("t"))).await.unwrap();
        broker.alter_topic(&name("t"), set(&[("retention.ms", "5"), ("cleanup.policy", "compact")]), true).await.unwrap();
        assert_eq!(topic.config().retention_ms, Some(604_800_000), "only checked");
        broker.alter_topic(&name("t"), set(&[("retention.ms", "5"), ("max.message.bytes", "77")]), false).await.unwrap();
        assert_eq!((topic.config().retention_ms, topic.config().max_message_bytes), (Some(5), 77));
        broker.create_partitions(&name("t"), 6).await.unwrap();
        broker.alter_topic(&name("t"), remove("max.message.bytes"), false).await.unwrap();
        let broker = disk.crash().broker().await;
        let topic = broker.topic(&name("t")).unwrap();
        let config = topic.config();
        assert_eq!((config.retention_ms, config.max_message_bytes, topic.partition_count()), (Some(5), 1_048_588, 6));
    }

    #[tokio::test]
    async fn a_bad_value_is_told_before_a_missing_topic_and_changes_nothing() {
        let broker = TestDisk::default().broker().await;
        let bad = broker.alter_topic(&name("t"), set(&[("retention.ms", "5"), ("no.such", "1")]), false).await;
        assert!(matches!(bad, Err(BrokerError::InvalidConfig(_))), "{bad:?}");
        let missing = broker.alter_topic(&name("t"), set(&[("retention.ms", "5")]), false).await;
        assert!(matches!(missing, Err(BrokerError::UnknownTopic(_))), "{missing:?}");
        let topic = broker.create_topic(NewTopic::named(name("t"))).await.unwrap();
        assert!(broker.alter_topic(&name("t"), set(&[("retention.ms", "5"), ("retention.bytes", "x")]), false).await.is_err());
        assert!(topic.config().set.is_empty());
    }

    #[tokio::test]
    async fn a_brokers_settings_are_the_defaults_of_its_topics_at_once_and_after_a_crash() {
        let disk = TestDisk::default();
        let broker = disk.broker().await;
        let topic = broker.create_topic(NewTopic::named(name("t"))).await.unwrap();
        let own = NewTopic { configs: BTreeMap::from([("retention.ms".to_owned(), "9".to_owned())]), ..NewTopic::named(name("own")) };
        let own = broker.create_topic(own).await.unwrap();
        broker
            .alter_configs(ConfigOwner::Cluster, set(&[("log.retention.ms", "7"), ("producer.id.expiration.ms", "1000")]), false)
            .await
            .unwrap();
        assert_eq!((topic.config().retention_ms, own.config().retention_ms), (Some(7), Some(9)));
        broker.alter_configs(ConfigOwner::Broker, set(&[("log.retention.ms", "6")]), false).await.unwrap();
        assert_eq!(topic.config().retention_ms, Some(6));
        let refused = broker.alter_configs(ConfigOwner::Broker, set(&[("num.partitions", "9")]), false).await;
        assert!(matches!(refused, Err(BrokerError::InvalidConfig(_))));
        let disk = disk.crash();
        let broker = disk.broker().await;
        assert_eq!(broker.topic(&name("t")).unwrap().config().retention_ms, Some(6));
        assert_eq!(broker.config().producer_expiration.as_secs(), 1);
        broker.alter_configs(ConfigOwner::Broker, remove("log.retention.ms"), false).await.unwrap();
        assert_eq!(broker.topic(&name("t")).unwrap().config().retention_ms, Some(7));
        broker.alter_configs(ConfigOwner::Cluster, ConfigEdit::Replace(BTreeMap::new()), false).await.unwrap();
        assert_eq!(broker.topic(&name("t")).unwrap().config().retention_ms, Some(604_800_000));
    }

    #[tokio::test]
    async fn a_group_has_settings_until_the_last_is_taken_away() {
        let disk = TestDisk::default();
        let group = || ConfigOwner::Group("g".to_owned());
        disk.broker().await.alter_configs(group(), set(&[("consumer.session.timeout.ms", "50000")]), false).await.unwrap();
        let broker = disk.crash().broker().await;
        assert_eq!(broker.groups_with_configs(), ["g"]);
        assert!(broker.alter_configs(group(), set(&[("consumer.session.timeout.ms", "1")]), false).await.is_err());
        let told = broker.describe_group_configs("g");
        assert!(told.iter().any(|one| one.name == "consumer.session.timeout.ms" && one.value.as_deref() == Some("50000")));
        broker.alter_configs(group(), remove("consumer.session.timeout.ms"), false).await.unwrap();
        assert!(broker.groups_with_configs().is_empty());
    }

    #[tokio::test]
    async fn nothing_is_no_word_that_a_list_could_get() {
        let broker = TestDisk::default().broker().await;
        let topic = broker.create_topic(NewTopic::named(name("t"))).await.unwrap();
        let append = |words: &str| ConfigEdit::Change(vec![("cleanup.policy".to_owned(), ConfigChange::Append(words.to_owned()))]);
        let refused = broker.alter_topic(&name("t"), append(""), false).await;
        assert!(matches!(refused, Err(BrokerError::InvalidConfig(_))), "{refused:?}");
        broker.alter_topic(&name("t"), append("compact,compact"), false).await.unwrap();
        assert_eq!(topic.config().set["cleanup.policy"], "delete,compact");
        broker.alter_topic(&name("t"), set(&[("cleanup.policy", "")]), false).await.unwrap();
        broker.alter_topic(&name("t"), append(""), false).await.unwrap();
        assert_eq!(topic.config().set["cleanup.policy"], "");
    }

    #[tokio::test]
    async fn a_list_grows_from_its_own_default_whatever_the_broker_has_been_given() {
        let broker = TestDisk::default().broker().await;
        let topic = broker.create_topic(NewTopic::named(name("t"))).await.unwrap();
        broker.alter_configs(ConfigOwner::Cluster, set(&[("log.cleanup.policy", "compact")]), false).await.unwrap();
        let append = ConfigEdit::Change(vec![("cleanup.policy".to_owned(), ConfigChange::Append("delete".to_owned()))]);
        broker.alter_topic(&name("t"), append, false).await.unwrap();
        assert_eq!(topic.config().set["cleanup.policy"], "delete");
    }

    #[test]
    fn an_owner_is_its_key() {
        for owner in [ConfigOwner::Cluster, ConfigOwner::Broker, ConfigOwner::Group(String::new()), ConfigOwner::Group("a/b".to_owned())] {
            assert_eq!(ConfigOwner::read(&owner.key()), Some(owner));
        }
        assert_eq!(ConfigOwner::read(b"else"), None);
    }

    #[test]
    fn changes_touch_what_they_name_and_a_list_grows_from_its_default() {
        let set = BTreeMap::from([("a".to_owned(), "1".to_owned())]);
        let kind = |name: &str| Some(if name == "list" { ConfigKind::List } else { ConfigKind::Int });
        let after = |changes: &[(&str, ConfigChange)]| {
            let changes = changes.iter().map(|(name, change)| ((*name).to_owned(), change.clone())).collect();
            let after = ConfigEdit::Change(changes).apply(&set, kind, |name| (name == "list").then_some("x"));
            after.map(|set| set.into_iter().map(|(k, v)| format!("{k}={v}")).collect::<Vec<_>>().join(" ")).map_err(|e| e.to_string())
        };
        let text = |t: &str| t.to_owned();
        assert_eq!(after(&[("b", ConfigChange::Set(text("2")))]).unwrap(), "a=1 b=2");
        assert_eq!(after(&[("a", ConfigChange::Remove), ("never", ConfigChange::Remove)]).unwrap(), "");
        assert_eq!(after(&[("list", ConfigChange::Append(text("y")))]).unwrap(), "a=1 list=x,y");
        assert_eq!(after(&[("list", ConfigChange::Append(text("")))]).unwrap(), "a=1 list=x,", "which is no good list");
        assert_eq!(after(&[("list", ConfigChange::Subtract(text("x")))]).unwrap(), "a=1 list=");
        assert!(after(&[("a", ConfigChange::Append(text("y")))]).unwrap_err().contains("not a list"));
        let replaced = ConfigEdit::Replace(BTreeMap::new()).apply(&set, kind, |_| None).unwrap();
        assert!(replaced.is_empty());
    }
}
