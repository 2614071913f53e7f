//! Record batches, packed with every codec: reading, checking and rewriting them never panics, never unpacks past the limit, and what
//! passed the check at the broker's door reads the same wherever it is read again.
//!
//! Input: `how | batches`. Bit 0 of `how` puts the checksums right first, bits 1 to 3 pack what follows the header with a codec.

#![cfg_attr(feature = "libfuzzer", no_main)]

use bytes::Bytes;
use vitalsql_fuzz::memory;
use vitalsql_fuzz::record::{Batch, Codec, HEADER_BYTES, compress, survey_records_within};

/// What a batch may unpack to.
const LIMIT: usize = 1 << 20;
/// The decoders' own windows and tables (zstd may keep 128 MiB of window, outside of what is counted; lz4 a block of 4 MiB twice), and a
/// vector that doubles as it grows.
const ALLOWED: usize = 24 << 20;

fn run(data: &[u8]) {
    let [how, rest @ ..] = data else { return };
    let mut bytes = rest.to_vec();
    if let Some(codec) = Codec::from_number(i16::from(how >> 1 & 7)).filter(|codec| *codec != Codec::None)
        && bytes.len() >= HEADER_BYTES
    {
        let packed = compress(codec, &bytes[HEADER_BYTES..]);
        bytes.truncate(HEADER_BYTES);
        bytes.extend_from_slice(&packed);
        bytes[22] = bytes[22] & !7 | how >> 1 & 7;
        let length = i32::try_from(bytes.len() - 12).expect("small");
        bytes[8..12].copy_from_slice(&length.to_be_bytes());
        bytes[16] = 2;
    }
    if how & 1 == 1 {
        seal(&mut bytes);
    }
    let mut rest = Bytes::from(bytes);
    while let Ok(Some(batch)) = memory::most(4096, || Batch::split(&mut rest)) {
        check(&batch);
    }
}

/// Puts the checksum of every batch right that is whole.
fn seal(bytes: &mut [u8]) {
    let mut rest = bytes;
    while rest.len() >= HEADER_BYTES {
        let length = i32::from_be_bytes(rest[8..12].try_into().expect("four bytes"));
        let Ok(length) = usize::try_from(i64::from(length) + 12) else { return };
        if length < HEADER_BYTES || length > rest.len() {
            return;
        }
        let (batch, behind) = rest.split_at_mut(length);
        let crc = crc32c::crc32c(&batch[21..]);
        batch[17..21].copy_from_slice(&crc.to_be_bytes());
        rest = behind;
    }
}

fn check(batch: &Batch) {
    let allowed = ALLOWED + 2 * batch.len_bytes();
    let survey = memory::most(allowed, || survey_records_within(batch, LIMIT));
    let records = memory::most(allowed, || batch.records_within(LIMIT));
    let Ok(records) = records else {
        assert!(survey.is_err(), "the door takes what cannot be read");
        return;
    };
    assert!(records.len_bytes() <= LIMIT);
    let mut read = Vec::new();
    for record in &records {
        let Ok(record) = record else {
            assert!(survey.is_err(), "the door takes a record that cannot be read");
            break;
        };
        assert!(record.offset >= batch.base_offset() && record.offset <= batch.last_offset(), "a record outside its batch");
        let headers = record.headers().map(|header| header.is_ok()).fold(true, |a, b| a && b);
        assert!(headers || survey.is_err(), "the door takes headers that cannot be read");
        read.push((record.offset, record.timestamp, record.key.map(<[u8]>::to_vec), record.value.map(<[u8]>::to_vec)));
    }
    assert!(read.len() <= records.at_most());
    if let Ok(survey) = survey {
        assert_eq!(survey.min_timestamp, read.iter().map(|r| r.1).min().expect("at least one"));
        assert_eq!(survey.max_timestamp, read.iter().map(|r| r.1).max().expect("at least one"));
        // Compaction keeps some, and they are what they were.
        let keep = |offset: i64| offset % 2 == 0;
        let some = batch.filtered(Some(5), |record| keep(record.offset.0)).expect("it was readable");
        let kept: Vec<_> = read.iter().filter(|r| keep(r.0.0)).cloned().collect();
        match some {
            None => assert!(kept.is_empty()),
            Some(some) => {
                let some = Batch::parse(some.to_bytes()).expect("a batch of ours");
                assert_eq!((some.base_offset(), some.last_offset()), (batch.base_offset(), batch.last_offset()));
                let again = some.records_within(LIMIT).expect("readable");
                let again = again.iter().map(|r| r.expect("readable"));
                let again: Vec<_> =
                    again.map(|r| (r.offset, r.timestamp, r.key.map(<[u8]>::to_vec), r.value.map(<[u8]>::to_vec))).collect();
                assert_eq!(again, kept);
            }
        }
    }
    let empty = Batch::parse(batch.emptied().to_bytes()).expect("a batch of ours");
    assert_eq!(empty.last_offset(), batch.last_offset());
}

vitalsql_fuzz::target!(run);
