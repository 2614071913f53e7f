//! Reads which topics a consumer subscribes to out of its metadata for a protocol.
//!
//! Only the front of Kafka's consumer protocol, the same in all its versions: version i16, count i32, names.

/// The topics, or `None` where the bytes are not a consumer's.
pub(super) fn subscribed_topics(metadata: &[u8]) -> Option<Vec<&str>> {
    let mut rest = metadata.get(2..)?;
    let count = take_i32(&mut rest)?;
    let mut topics = Vec::new();
    for _ in 0..count {
        let (length, behind) = rest.split_first_chunk::<2>()?;
        let length = usize::try_from(i16::from_be_bytes(*length)).ok()?;
        let (name, behind) = behind.split_at_checked(length)?;
        topics.push(std::str::from_utf8(name).ok()?);
        rest = behind;
    }
    Some(topics)
}

fn take_i32(bytes: &mut &[u8]) -> Option<i32> {
    let (first, rest) = bytes.split_first_chunk::<4>()?;
    *bytes = rest;
    Some(i32::from_be_bytes(*first))
}

/// An assignment of nothing, in the consumer protocol: version 0, no topics, no user data. A consumer's
/// client cannot read fewer bytes than these.
pub(super) const EMPTY_ASSIGNMENT: [u8; 10] = [0, 0, 0, 0, 0, 0, 0xff, 0xff, 0xff, 0xff];

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
}
