//! Reads what a consumer subscribes to out of its metadata for a protocol, and writes what it is assigned.
//!
//! Kafka's consumer protocol: version i16, topics, user data, and from version 1 on what the consumer has, from
//! version 3 on where it stands. Nothing is reserved by a count that was not checked.

/// Partitions of topics by name.
pub(super) type NamedPartitions = Vec<(String, Vec<i32>)>;

/// What a consumer says of itself.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Subscription {
    pub(super) topics: Vec<String>,
    /// What it has, from version 1 on.
    pub(super) owned: NamedPartitions,
    pub(super) rack_id: Option<String>,
}

/// The topics, or `None` where the bytes are not a consumer's.
pub(super) fn subscribed_topics(metadata: &[u8]) -> Option<Vec<&str>> {
    let mut rest = metadata.get(2..)?;
    take_topics(&mut rest)
}

/// All of it, or `None` where the bytes are not a consumer's.
pub(super) fn read_subscription(metadata: &[u8]) -> Option<Subscription> {
    let mut rest = metadata;
    let version = take_i16(&mut rest)?;
    let topics = take_topics(&mut rest)?.into_iter().map(str::to_owned).collect();
    take_bytes(&mut rest)?;
    let mut subscription = Subscription { topics, ..Subscription::default() };
    if version >= 1 {
        subscription.owned = take_partitions(&mut rest)?;
    }
    if version >= 2 {
        take_i32(&mut rest)?;
    }
    if version >= 3 {
        subscription.rack_id = take_nullable_text(&mut rest)?.map(str::to_owned);
    }
    Some(subscription)
}

/// The partitions of an assignment, or `None` where the bytes are none.
pub(super) fn read_assignment(assignment: &[u8]) -> Option<NamedPartitions> {
    let mut rest = assignment;
    take_i16(&mut rest)?;
    take_partitions(&mut rest)
}

/// An assignment, in the version that the consumer's metadata is in.
pub(super) fn write_assignment(metadata: &[u8], partitions: &[(String, Vec<i32>)]) -> Vec<u8> {
    let version = take_i16(&mut &metadata[..]).unwrap_or_default().max(0);
    let mut out = version.to_be_bytes().to_vec();
    put_count(&mut out, partitions.len());
    for (topic, of) in partitions {
        out.extend(i16::try_from(topic.len()).expect("a topic's name is short").to_be_bytes());
        out.extend(topic.as_bytes());
        put_count(&mut out, of.len());
        out.extend(of.iter().flat_map(|partition| partition.to_be_bytes()));
    }
    out.extend((-1_i32).to_be_bytes()); // user data
    out
}

fn put_count(out: &mut Vec<u8>, count: usize) {
    out.extend(i32::try_from(count).expect("a node has fewer partitions").to_be_bytes());
}

fn take_topics<'a>(rest: &mut &'a [u8]) -> Option<Vec<&'a str>> {
    let count = take_i32(rest)?;
    let mut topics = Vec::new();
    for _ in 0..count {
        topics.push(take_nullable_text(rest)??);
    }
    Some(topics)
}

fn take_partitions(rest: &mut &[u8]) -> Option<NamedPartitions> {
    let count = take_i32(rest)?;
    let mut all = Vec::new();
    for _ in 0..count {
        let topic = take_nullable_text(rest)??.to_owned();
        let mut of = Vec::new();
        for _ in 0..take_i32(rest)? {
            of.push(take_i32(rest)?);
        }
        all.push((topic, of));
    }
    Some(all)
}

/// `Some(None)` for null.
#[allow(clippy::option_option, reason = "the outer one says whether it could be read")]
fn take_nullable_text<'a>(rest: &mut &'a [u8]) -> Option<Option<&'a str>> {
    let Ok(length) = usize::try_from(take_i16(rest)?) else { return Some(None) };
    let (text, behind) = rest.split_at_checked(length)?;
    *rest = behind;
    Some(Some(std::str::from_utf8(text).ok()?))
}

fn take_bytes(rest: &mut &[u8]) -> Option<()> {
    let Ok(length) = usize::try_from(take_i32(rest)?) else { return Some(()) };
    *rest = rest.split_at_checked(length)?.1;
    Some(())
}

fn take_i16(bytes: &mut &[u8]) -> Option<i16> {
    let (first, rest) = bytes.split_first_chunk::<2>()?;
    *bytes = rest;
    Some(i16::from_be_bytes(*first))
}

fn take_i32(bytes: &mut &[u8]) -> Option<i32> {
    let (first, rest) = bytes.split_first_chunk::<4>()?;
    *bytes = rest;
    Some(i32::from_be_bytes(*first))
}

/// The protocol type of consumers.
pub(super) const CONSUMER: &str = "consumer";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn topics_are_read_and_hostile_counts_are_not_believed() {
        let metadata = [&[0, 1, 0, 0, 0, 2, 0, 1][..], b"a", &[0, 2], b"bc", &[0xff; 4]].concat();
        assert_eq!(subscribed_topics(&metadata), Some(vec!["a", "bc"]));
        assert_eq!(subscribed_topics(&[0, 1, 0x7f, 0xff, 0xff, 0xff]), None);
        assert_eq!(subscribed_topics(&[]), None);
        assert_eq!(subscribed_topics(&metadata[..9]), None);
    }

    #[test]
    fn an_assignment_is_read_as_it_was_written() {
        let partitions = vec![("a".to_owned(), vec![0, 2]), ("b".to_owned(), vec![])];
        assert_eq!(read_assignment(&write_assignment(&[0, 3], &partitions)), Some(partitions));
        assert_eq!(read_assignment(&[0, 0, 0, 0, 0, 0, 0xff, 0xff, 0xff, 0xff]), Some(Vec::new()));
        assert_eq!(read_assignment(&[0, 1, 0, 0, 0, 1, 0, 1, b'a', 0x7f, 0xff, 0xff, 0xff]), None);
    }

    #[test]
    fn a_subscription_of_every_version_is_read() {
        let v0 = [&[0, 0, 0, 0, 0, 1, 0, 1][..], b"a", &[0xff; 4]].concat();
        let owned = [&[0, 0, 0, 1, 0, 1][..], b"a", &[0, 0, 0, 1, 0, 0, 0, 7]].concat();
        let v3 = [&[0, 3, 0, 0, 0, 1, 0, 1][..], b"a", &[0, 0, 0, 1, 9], &owned, &[0, 0, 0, 5, 0, 1], b"r"].concat();
        let topics = vec!["a".to_owned()];
        assert_eq!(read_subscription(&v0), Some(Subscription { topics: topics.clone(), ..Subscription::default() }));
        let read = read_subscription(&v3).unwrap();
        assert_eq!(read, Subscription { topics, owned: vec![("a".to_owned(), vec![7])], rack_id: Some("r".to_owned()) });
        assert_eq!(read_subscription(&v3[..v3.len() - 1]), None);
    }
}
