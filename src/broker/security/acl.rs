//! Access rules: what they say, and what follows from all of them together. Pure.
//!
//! The meaning is that of Kafka's `StandardAuthorizer`: a rule is about one resource (a name, a prefix, or `*`), one
//! principal (or `User:*`), one host (or `*`) and one operation (or all); a rule that denies goes before one that
//! allows; what may be read, written, deleted or altered may be described. Facts: Apache Kafka's documentation,
//! "Authorization and ACLs". Called by `security` and, for the numbers of the wire, by `server`.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Bound;

use serde::{Deserialize, Serialize};

/// The name of the one cluster there is.
pub const CLUSTER: &str = "kafka-cluster";
/// Stands for any name, and for any host.
pub const WILDCARD: &str = "*";
/// Stands for any principal.
pub const ANYONE: &str = "User:*";

macro_rules! coded {
    ($(#[$doc:meta])* $name:ident { $($(#[$variant_doc:meta])* $variant:ident = $code:literal,)+ }) => {
        $(#[$doc])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
        #[repr(i8)]
        pub enum $name { $($(#[$variant_doc])* $variant = $code,)+ }

        impl $name {
            /// All there are.
            pub const ALL: &[Self] = &[$(Self::$variant,)+];

            /// Kafka's number for it.
            #[must_use]
            pub const fn code(self) -> i8 {
                self as i8
            }

            /// What Kafka's number stands for.
            #[must_use]
            pub fn from_code(code: i8) -> Option<Self> {
                Self::ALL.iter().copied().find(|one| one.code() == code)
            }
        }
    };
}

coded! {
    /// What rules can be about.
    ResourceType {
        /// A topic.
        Topic = 2,
        /// A consumer group.
        Group = 3,
        /// The node as a whole.
        Cluster = 4,
        /// A transactional id.
        TransactionalId = 5,
        /// A delegation token; there are none, but rules about them may be kept.
        DelegationToken = 6,
        /// A user.
        User = 7,
    }
}

coded! {
    /// How a rule names what it is about.
    Pattern {
        /// By its name, or `*` for all.
        Literal = 3,
        /// By how its name begins.
        Prefixed = 4,
    }
}

coded! {
    /// What can be done to a resource.
    Operation {
        /// Everything.
        All = 2,
        /// Fetch records, join a group, read its positions.
        Read = 3,
        /// Produce.
        Write = 4,
        /// Make it.
        Create = 5,
        /// Remove it.
        Delete = 6,
        /// Change it.
        Alter = 7,
        /// See that it exists and what it is.
        Describe = 8,
        /// What brokers do among themselves.
        ClusterAction = 9,
        /// See its settings.
        DescribeConfigs = 10,
        /// Change its settings.
        AlterConfigs = 11,
        /// Produce with a sequence, to any topic.
        IdempotentWrite = 12,
        /// Make delegation tokens.
        CreateTokens = 13,
        /// See delegation tokens.
        DescribeTokens = 14,
        /// End transactions in two steps.
        TwoPhaseCommit = 15,
    }
}

coded! {
    /// What a rule says.
    Permission {
        /// No.
        Deny = 2,
        /// Yes.
        Allow = 3,
    }
}

/// One access rule.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Acl {
    /// What kind of thing it is about.
    pub resource: ResourceType,
    /// How it is named.
    pub pattern: Pattern,
    /// Its name, the beginning of it, or `*`.
    pub name: String,
    /// Whom it is about: `User:alice` or `User:*`.
    pub principal: String,
    /// From where: an address or `*`.
    pub host: String,
    /// What it is about.
    pub operation: Operation,
    /// Yes or no.
    pub permission: Permission,
}

/// How a filter looks at names.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PatternFilter {
    /// Any rule whose name is this one.
    Any,
    /// Any rule that applies to a resource of this name.
    Match,
    /// Rules of this pattern and name.
    Exactly(Pattern),
}

/// Which rules are meant. `None` means any.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AclFilter {
    /// What they are about.
    pub resource: Option<ResourceType>,
    /// How names are looked at.
    pub pattern: PatternFilter,
    /// Which name.
    pub name: Option<String>,
    /// Whom they are about.
    pub principal: Option<String>,
    /// From where.
    pub host: Option<String>,
    /// Which operation.
    pub operation: Option<Operation>,
    /// Yes or no.
    pub permission: Option<Permission>,
}

impl AclFilter {
    /// Whether a rule is meant.
    #[must_use]
    pub fn matches(&self, acl: &Acl) -> bool {
        fn fits<T: PartialEq>(wanted: Option<&T>, is: &T) -> bool {
            wanted.is_none_or(|wanted| wanted == is)
        }
        fits(self.resource.as_ref(), &acl.resource)
            && self.fits_name(acl)
            && fits(self.principal.as_ref(), &acl.principal)
            && fits(self.host.as_ref(), &acl.host)
            && fits(self.operation.as_ref(), &acl.operation)
            && fits(self.permission.as_ref(), &acl.permission)
    }

    fn fits_name(&self, acl: &Acl) -> bool {
        if matches!(self.pattern, PatternFilter::Exactly(pattern) if pattern != acl.pattern) {
            return false;
        }
        let Some(name) = &self.name else { return true };
        match (self.pattern, acl.pattern) {
            (PatternFilter::Any | PatternFilter::Exactly(_), _) => *name == acl.name,
            (PatternFilter::Match, Pattern::Literal) => *name == acl.name || acl.name == WILDCARD,
            (PatternFilter::Match, Pattern::Prefixed) => name.starts_with(&acl.name),
        }
    }
}

/// Who asks.
#[derive(Clone, Copy, Debug)]
pub struct Asking<'a> {
    /// As rules name it: `User:alice`.
    pub principal: &'a str,
    /// The address it comes from.
    pub host: &'a str,
}

/// What the rules say together.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ruling {
    /// A rule allows it, and none denies it.
    Allowed,
    /// A rule denies it, or none of those about the resource allows it.
    Denied,
    /// No rule is about this resource.
    Silent,
}

/// What rules about one pattern say, beside the pattern.
type Rules = BTreeSet<(String, String, Operation, Permission)>;

/// All access rules.
#[derive(Clone, Debug, Default)]
pub struct Acls {
    rules: BTreeMap<(ResourceType, Pattern, String), Rules>,
    count: usize,
}

impl Acls {
    /// Takes a rule in. Answers whether it is new.
    pub fn insert(&mut self, acl: Acl) -> bool {
        let rules = self.rules.entry((acl.resource, acl.pattern, acl.name)).or_default();
        let new = rules.insert((acl.principal, acl.host, acl.operation, acl.permission));
        self.count += usize::from(new);
        new
    }

    /// Lets a rule go. Answers whether it was there.
    pub fn remove(&mut self, acl: &Acl) -> bool {
        let key = (acl.resource, acl.pattern, acl.name.clone());
        let Some(rules) = self.rules.get_mut(&key) else { return false };
        let was = rules.remove(&(acl.principal.clone(), acl.host.clone(), acl.operation, acl.permission));
        if rules.is_empty() {
            self.rules.remove(&key);
        }
        self.count -= usize::from(was);
        was
    }

    /// How many rules there are.
    #[must_use]
    pub const fn len(&self) -> usize {
        self.count
    }

    /// Whether there is no rule.
    #[must_use]
    pub const fn is_empty(&self) -> bool {
        self.count == 0
    }

    /// Whether there is exactly this rule.
    #[must_use]
    pub fn contains(&self, acl: &Acl) -> bool {
        let rules = self.rules.get(&(acl.resource, acl.pattern, acl.name.clone()));
        rules.is_some_and(|rules| rules.contains(&(acl.principal.clone(), acl.host.clone(), acl.operation, acl.permission)))
    }

    /// Every rule, by resource.
    pub fn iter(&self) -> impl Iterator<Item = Acl> {
        self.rules.iter().flat_map(|((resource, pattern, name), rules)| {
            rules.iter().map(|(principal, host, operation, permission)| Acl {
                resource: *resource,
                pattern: *pattern,
                name: name.clone(),
                principal: principal.clone(),
                host: host.clone(),
                operation: *operation,
                permission: *permission,
            })
        })
    }

    /// Whether someone may do something.
    #[must_use]
    pub fn rule(&self, who: Asking<'_>, operation: Operation, resource: ResourceType, name: &str) -> Ruling {
        let mut ruling = Ruling::Silent;
        for (_, rules) in self.about(resource, name) {
            for (principal, host, about, permission) in rules {
                if ruling == Ruling::Silent {
                    ruling = Ruling::Denied;
                }
                if !concerns(who, principal, host) {
                    continue;
                }
                match permission {
                    Permission::Deny if *about == Operation::All || *about == operation => return Ruling::Denied,
                    Permission::Allow if allows(*about, operation) => ruling = Ruling::Allowed,
                    _ => {}
                }
            }
        }
        ruling
    }

    /// Whether someone may do something to at least one resource of a kind, whatever its name.
    #[must_use]
    pub fn rule_for_any(&self, who: Asking<'_>, operation: Operation, resource: ResourceType) -> bool {
        let of_kind = || {
            self.rules
                .range((resource, Pattern::Literal, String::new())..)
                .take_while(move |((kind, ..), _)| *kind == resource)
                .flat_map(|((_, pattern, name), rules)| rules.iter().map(move |rule| (*pattern, name.as_str(), rule)))
                .filter(move |(_, _, (principal, host, ..))| concerns(who, principal, host))
        };
        let denied: BTreeSet<(Pattern, &str)> = of_kind()
            .filter(|(_, _, (_, _, about, permission))| {
                *permission == Permission::Deny && (*about == Operation::All || *about == operation)
            })
            .map(|(pattern, name, _)| (pattern, name))
            .collect();
        if denied.contains(&(Pattern::Literal, WILDCARD)) {
            return false;
        }
        // A name that is allowed does not count where it, or a beginning of it, is denied.
        let is_denied = |pattern: Pattern, name: &str| {
            let by_prefix = name.char_indices().any(|(at, c)| denied.contains(&(Pattern::Prefixed, &name[..at + c.len_utf8()])));
            by_prefix || (pattern == Pattern::Literal && denied.contains(&(Pattern::Literal, name)))
        };
        of_kind()
            .filter(|(_, _, (_, _, about, permission))| *permission == Permission::Allow && allows(*about, operation))
            .any(|(pattern, name, _)| name == WILDCARD || !is_denied(pattern, name))
    }

    /// The rules about a resource: those of its name, of any name, and of each beginning of its name.
    fn about<'a>(&'a self, resource: ResourceType, name: &'a str) -> impl Iterator<Item = (&'a str, &'a Rules)> {
        let literal = move |name: &str| self.rules.get_key_value(&(resource, Pattern::Literal, name.to_owned()));
        let own = literal(name).into_iter().chain((name != WILDCARD).then(|| literal(WILDCARD)).flatten());
        own.map(|((.., name), rules)| (name.as_str(), rules)).chain(Prefixes { acls: self, resource, name, below: Some(name.len()) })
    }
}

/// Walks the prefixed rules that apply to a name from the longest to the shortest, in as many steps as there are
/// names to pass, not as there are rules.
struct Prefixes<'a> {
    acls: &'a Acls,
    resource: ResourceType,
    name: &'a str,
    /// Only beginnings of the name up to this length are left.
    below: Option<usize>,
}

impl<'a> Iterator for Prefixes<'a> {
    type Item = (&'a str, &'a Rules);

    fn next(&mut self) -> Option<Self::Item> {
        loop {
            let most = &self.name[..self.below?];
            let from = Bound::Included((self.resource, Pattern::Prefixed, String::new()));
            let to = Bound::Included((self.resource, Pattern::Prefixed, most.to_owned()));
            let Some(((.., found), rules)) = self.acls.rules.range((from, to)).next_back() else {
                self.below = None;
                continue;
            };
            let common = common_length(most, found);
            if common == found.len() {
                // This one applies. The next is shorter.
                self.below = most[..common].char_indices().next_back().map(|(at, _)| at);
                return Some((found, rules));
            }
            self.below = Some(common);
        }
    }
}

/// How many bytes two texts begin with alike, at a character's end.
fn common_length(a: &str, b: &str) -> usize {
    a.char_indices().zip(b.chars()).find(|((_, a), b)| a != b).map_or(a.len().min(b.len()), |((at, _), _)| at)
}

fn concerns(who: Asking<'_>, principal: &str, host: &str) -> bool {
    (principal == who.principal || principal == ANYONE) && (host == WILDCARD || host == who.host)
}

/// Whether a rule that allows one thing allows another.
const fn allows(allowed: Operation, wanted: Operation) -> bool {
    match wanted {
        Operation::Describe => {
            matches!(
                allowed,
                Operation::All | Operation::Describe | Operation::Read | Operation::Write | Operation::Delete | Operation::Alter
            )
        }
        Operation::DescribeConfigs => matches!(allowed, Operation::All | Operation::DescribeConfigs | Operation::AlterConfigs),
        _ => matches!(allowed, Operation::All) || allowed as i8 == wanted as i8,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// `allow alice read topic:t` or `deny * all topic:t* from 10.0.0.1`; a name that ends in `*` is a prefix.
    fn acl(text: &str) -> Acl {
        let words: Vec<&str> = text.split(' ').collect();
        let (kind, name) = words[3].split_once(':').expect("a kind and a name");
        let (pattern, name) = match name.strip_suffix('*') {
            Some(prefix) if !prefix.is_empty() => (Pattern::Prefixed, prefix),
            _ => (Pattern::Literal, name),
        };
        let operation = match words[2] {
            "all" => Operation::All,
            "read" => Operation::Read,
            "write" => Operation::Write,
            "describe" => Operation::Describe,
            "alter" => Operation::Alter,
            "alterconfigs" => Operation::AlterConfigs,
            other => panic!("{other}"),
        };
        Acl {
            resource: if kind == "topic" { ResourceType::Topic } else { ResourceType::Group },
            pattern,
            name: name.to_owned(),
            principal: format!("User:{}", words[1]),
            host: words.get(5).copied().unwrap_or("*").to_owned(),
            operation,
            permission: if words[0] == "allow" { Permission::Allow } else { Permission::Deny },
        }
    }

    fn acls(all: &[&str]) -> Acls {
        let mut acls = Acls::default();
        for one in all {
            assert!(acls.insert(acl(one)));
        }
        acls
    }

    const ALICE: Asking<'_> = Asking { principal: "User:alice", host: "10.0.0.1" };

    #[test]
    fn what_denies_goes_before_what_allows_and_silence_is_told_from_no() {
        use Operation::{Describe, DescribeConfigs, Read, Write};
        use Ruling::{Allowed, Denied, Silent};
        for (rules, operation, name, want) in [
            (&["allow alice read topic:t"][..], Read, "t", Allowed),
            (&["allow alice read topic:t"], Write, "t", Denied),
            (&["allow alice read topic:t"], Describe, "t", Allowed),
            (&["allow alice read topic:t"], Read, "other", Silent),
            (&["allow bob read topic:t"], Read, "t", Denied),
            (&["allow * read topic:t"], Read, "t", Allowed),
            (&["allow alice all topic:t"], DescribeConfigs, "t", Allowed),
            (&["allow alice alterconfigs topic:t"], DescribeConfigs, "t", Allowed),
            (&["allow alice alterconfigs topic:t"], Describe, "t", Denied),
            (&["allow alice read topic:*"], Read, "whatever", Allowed),
            (&["allow alice read topic:vit*"], Read, "vitals", Allowed),
            (&["allow alice read topic:vit*"], Read, "vi", Silent),
            (&["allow alice read topic:v*", "deny alice read topic:vital*"], Read, "vitals", Denied),
            (&["allow alice read topic:v*", "deny alice read topic:vital*"], Read, "visits", Allowed),
            (&["allow alice all topic:t", "deny * write topic:*"], Write, "t", Denied),
            (&["allow alice all topic:t", "deny * write topic:*"], Read, "t", Allowed),
            // Denying what implies it does not deny describing.
            (&["allow alice describe topic:t", "deny alice read topic:t"], Describe, "t", Allowed),
            (&["allow alice read topic:t from 10.0.0.1"], Read, "t", Allowed),
            (&["allow alice read topic:t from 10.0.0.2"], Read, "t", Denied),
            (&["allow alice read group:t"], Read, "t", Silent),
        ] {
            assert_eq!(acls(rules).rule(ALICE, operation, ResourceType::Topic, name), want, "{rules:?} {operation:?} {name}");
        }
    }

    #[test]
    fn every_beginning_of_a_name_is_found_and_nothing_else() {
        let mut all = Acls::default();
        let names = ["a", "aa", "ab", "abc", "abd", "äb", "b", "abcdef", "abcdeg"];
        for name in names {
            all.insert(acl(&format!("allow alice read topic:{name}*")));
        }
        for name in ["a", "abc", "abcd", "abcdef", "abcdefg", "äbc", "c", "", "abe"] {
            let found: Vec<&str> = all.about(ResourceType::Topic, name).map(|(name, _)| name).collect();
            let mut want: Vec<&str> = names.into_iter().filter(|prefix| name.starts_with(prefix)).collect();
            want.sort_by_key(|name| std::cmp::Reverse(name.len()));
            assert_eq!(found, want, "{name}");
        }
    }

    #[test]
    fn any_topic_means_one_that_is_not_denied_again() {
        for (rules, want) in [
            (&["allow alice write topic:t"][..], true),
            (&["allow alice read topic:t"], false),
            (&["allow bob write topic:t"], false),
            (&["allow alice write topic:t", "deny alice write topic:t"], false),
            (&["allow alice write topic:t", "deny alice write topic:*"], false),
            (&["allow alice write topic:*", "deny alice write topic:t*"], true),
            (&["allow alice write topic:tt*", "deny alice write topic:t*"], false),
            (&["allow alice write topic:t*", "deny alice write topic:tt*"], true),
            (&["allow alice write group:t"], false),
        ] {
            assert_eq!(acls(rules).rule_for_any(ALICE, Operation::Write, ResourceType::Topic), want, "{rules:?}");
        }
    }

    #[test]
    fn a_filter_finds_rules_by_any_of_their_parts() {
        let any = AclFilter {
            resource: None,
            pattern: PatternFilter::Any,
            name: None,
            principal: None,
            host: None,
            operation: None,
            permission: None,
        };
        let all = acls(&["allow alice read topic:t", "allow alice read topic:te*", "deny bob all topic:*", "allow bob write group:t"]);
        let count = |filter: AclFilter| all.iter().filter(|acl| filter.matches(acl)).count();
        let named = |pattern, name: &str| AclFilter { pattern, name: Some(name.to_owned()), ..any.clone() };
        assert_eq!(count(any.clone()), 4);
        assert_eq!(count(named(PatternFilter::Any, "t")), 2);
        assert_eq!(count(named(PatternFilter::Match, "test")), 2);
        assert_eq!(count(named(PatternFilter::Exactly(Pattern::Prefixed), "te")), 1);
        assert_eq!(count(named(PatternFilter::Exactly(Pattern::Literal), "te")), 0);
        assert_eq!(count(AclFilter { principal: Some("User:bob".to_owned()), ..any.clone() }), 2);
        assert_eq!(count(AclFilter { permission: Some(Permission::Deny), ..any }), 1);
    }

    #[test]
    fn a_rule_is_there_once_and_goes_once() {
        let mut all = acls(&["allow alice read topic:t"]);
        let one = acl("allow alice read topic:t");
        assert!(!all.insert(one.clone()) && all.len() == 1 && all.contains(&one));
        assert!(all.remove(&one) && !all.remove(&one) && all.is_empty());
        assert_eq!(all.rule(ALICE, Operation::Read, ResourceType::Topic, "t"), Ruling::Silent);
    }
}
