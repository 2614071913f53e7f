//! Debug output read back as a tree, so that two types that cannot be compared can be: field names and
//! values, whatever the structs are called.

use std::collections::BTreeMap;

/// A value in Debug's notation. Newtypes and `Some` are looked through; all that is empty or null is
/// one, since the bytes are compared elsewhere.
#[derive(Debug, PartialEq)]
pub enum Tree {
    Empty,
    Leaf(String),
    List(Vec<Tree>),
    Fields(BTreeMap<String, Tree>),
}

/// Fields of the oracle that belong to versions or roles we do not serve.
const THEIRS_ONLY: &[&str] = &[
    "unknown_tagged_fields",
    "node_endpoints",
    "replica_state",
    "replica_directory_id",
    "high_watermark",
    "enable_2_pc",
    "keep_prepared_txn",
    "ongoing_txn_producer_id",
    "ongoing_txn_producer_epoch",
    "transactions",
    "results_by_transaction",
];

/// Fields of ours that belong to versions beyond the oracle.
const OURS_ONLY: &[&str] = &["topic_id", "is_cordoned"];

/// Our names on the left, where they differ from Kafka's.
const RENAMED: &[(&str, &[&str])] = &[
    ("topics", &["topic_data", "v3_and_below_topics"]),
    ("partitions", &["partition_data", "partition_responses"]),
    ("message", &["batch_index_error_message"]),
    ("match_name", &["_match"]),
    ("transactional_id", &["v3_and_below_transactional_id"]),
    ("producer_id", &["v3_and_below_producer_id"]),
    ("producer_epoch", &["v3_and_below_producer_epoch"]),
    ("results_by_topic", &["results_by_topic_v3_and_below"]),
];

/// Where two trees differ, as paths. The records of a Fetch response hide from Debug.
pub fn differences(ours: &Tree, theirs: &Tree) -> Vec<String> {
    let mut out = Vec::new();
    compare("", ours, theirs, &mut out);
    out
}

fn compare(path: &str, ours: &Tree, theirs: &Tree, out: &mut Vec<String>) {
    match (ours, theirs) {
        (Tree::Fields(ours), Tree::Fields(theirs)) => {
            let mut left: Vec<&str> = theirs.keys().map(String::as_str).collect();
            for (name, value) in ours {
                let names = RENAMED.iter().find(|(our, _)| our == name).map_or(&[][..], |(_, names)| names);
                match left.iter().position(|their| their == name || names.contains(their)) {
                    Some(at) => compare(&format!("{path}.{name}"), value, &theirs[left.remove(at)], out),
                    None if OURS_ONLY.contains(&name.as_str()) => {}
                    None => out.push(format!("{path}.{name}: the oracle has no such field")),
                }
            }
            out.extend(left.iter().filter(|name| !THEIRS_ONLY.contains(name)).map(|name| format!("{path}.{name}: missing here")));
        }
        (Tree::List(ours), Tree::List(theirs)) if ours.len() == theirs.len() => {
            for (i, (a, b)) in ours.iter().zip(theirs).enumerate() {
                compare(&format!("{path}[{i}]"), a, b, out);
            }
        }
        (Tree::Leaf(hidden), _) if hidden.ends_with(" bytes") => {}
        (a, b) if a == b => {}
        (a, b) => out.push(format!("{path}: {a:?} and {b:?}")),
    }
}

impl Tree {
    pub fn of(debug: &str) -> Self {
        let mut parser = Parser { text: debug.as_bytes(), at: 0 };
        let tree = parser.value();
        assert_eq!(parser.at, debug.len(), "all of {debug} is read");
        tree
    }
}

struct Parser<'a> {
    text: &'a [u8],
    at: usize,
}

impl Parser<'_> {
    fn peek(&self) -> u8 {
        self.text.get(self.at).copied().unwrap_or(0)
    }

    fn skip(&mut self, any_of: &[u8]) {
        while self.at < self.text.len() && any_of.contains(&self.peek()) {
            self.at += 1;
        }
    }

    fn word(&mut self) -> String {
        let from = self.at;
        while !matches!(self.peek(), 0 | b' ' | b',' | b':' | b'(' | b')' | b'[' | b']' | b'{' | b'}' | b'"') {
            self.at += 1;
        }
        String::from_utf8_lossy(&self.text[from..self.at]).into_owned()
    }

    fn quoted(&mut self) -> String {
        let from = self.at;
        self.at += 1;
        while self.peek() != b'"' {
            self.at += if self.peek() == b'\\' { 2 } else { 1 };
        }
        self.at += 1;
        String::from_utf8_lossy(&self.text[from..self.at]).into_owned()
    }

    fn value(&mut self) -> Tree {
        let word = self.word();
        match self.peek() {
            b'"' => match self.quoted() {
                empty if empty == "\"\"" => Tree::Empty,
                text => Tree::Leaf(text),
            },
            b'(' if word == "RecordsOut" => {
                let from = self.at + 1;
                self.at = from + self.text[from..].iter().position(|b| *b == b')').expect("it closes") + 1;
                Tree::Leaf(String::from_utf8_lossy(&self.text[from..self.at - 1]).into_owned())
            }
            b'(' => {
                self.at += 1;
                let inner = self.value();
                assert_eq!(self.peek(), b')');
                self.at += 1;
                if word == "TopicId" { uuid(&inner) } else { inner }
            }
            b'[' => {
                let items = self.items(b']', Self::value);
                if items.is_empty() { Tree::Empty } else { Tree::List(items) }
            }
            b' ' | b'{' if self.text[self.at..].starts_with(b" {") || word.is_empty() => {
                self.skip(b" ");
                let fields = self.items(b'}', |parser| {
                    let name = parser.word();
                    parser.skip(b": ");
                    (name, parser.value())
                });
                Tree::Fields(fields.into_iter().collect())
            }
            _ if word == "None" => Tree::Empty,
            _ => Tree::Leaf(word),
        }
    }

    fn items<T>(&mut self, close: u8, item: impl Fn(&mut Self) -> T) -> Vec<T> {
        self.at += 1;
        let mut items = Vec::new();
        loop {
            self.skip(b" ,");
            if self.peek() == close {
                self.at += 1;
                return items;
            }
            items.push(item(self));
        }
    }
}

/// Sixteen numbers in the notation of a UUID.
fn uuid(numbers: &Tree) -> Tree {
    let Tree::List(bytes) = numbers else { panic!("a topic id is a list: {numbers:?}") };
    let mut text = String::new();
    for (i, byte) in bytes.iter().enumerate() {
        let Tree::Leaf(byte) = byte else { panic!("a topic id is numbers") };
        if matches!(i, 4 | 6 | 8 | 10) {
            text.push('-');
        }
        text.push_str(&format!("{:02x}", byte.parse::<u8>().expect("a byte")));
    }
    Tree::Leaf(text)
}
