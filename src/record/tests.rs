//! Stories about record batches: what goes in comes out, and hostile bytes are refused.

use bytes::Bytes;
use proptest::prelude::*;

use super::*;

/// A record as a test holds it.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Plain {
    timestamp: i64,
    key: Option<Vec<u8>>,
    value: Option<Vec<u8>>,
    headers: Vec<(Vec<u8>, Option<Vec<u8>>)>,
}

fn build(codec: Codec, records: &[Plain]) -> Batch {
    let mut builder = BatchBuilder::new().with_codec(codec);
    for r in records {
        let headers: Vec<_> = r.headers.iter().map(|(k, v)| Header { key: k, value: v.as_deref() }).collect();
        builder.push(r.timestamp, r.key.as_deref(), r.value.as_deref(), &headers);
    }
    builder.finish()
}

fn read(batch: &Batch) -> Result<Vec<Plain>, BatchError> {
    let records = batch.records()?;
    records
        .iter()
        .map(|r| {
            let r = r?;
            let headers = r.headers().map(|h| h.map(|(k, v)| (k.to_vec(), v.map(<[u8]>::to_vec)))).collect::<Result<_, _>>()?;
            Ok(Plain { timestamp: r.timestamp, key: r.key.map(<[u8]>::to_vec), value: r.value.map(<[u8]>::to_vec), headers })
        })
        .collect()
}

fn some_records(n: usize) -> Vec<Plain> {
    (0..n)
        .map(|i| Plain {
            timestamp: 1_700_000_000_000 + (i as i64 * 37) % 500,
            key: (i % 3 > 0).then(|| format!("bed-{i}").into_bytes()),
            value: (i % 5 > 0).then(|| format!("{{\"hr\":{},\"spo2\":97}}", 60 + i % 40).into_bytes()),
            headers: (0..i % 4).map(|h| (b"k".to_vec(), (h % 2 == 0).then(|| vec![h as u8; h]))).collect(),
        })
        .collect()
}

/// The bytes of a batch whose header field at `at` was overwritten and whose checksum is right again.
fn forged(batch: &Batch, at: usize, bytes: &[u8]) -> Bytes {
    let mut raw = batch.to_bytes().to_vec();
    raw[at..at + bytes.len()].copy_from_slice(bytes);
    let crc = crc32c::crc32c(&raw[21..]);
    raw[17..21].copy_from_slice(&crc.to_be_bytes());
    raw.into()
}

#[test]
fn records_come_back_through_every_codec() {
    for codec in Codec::ALL {
        let records = some_records(1000);
        let batch = build(codec, &records);
        assert_eq!(batch.header().codec().unwrap(), codec);
        check_records(&batch).unwrap();
        let again = Batch::parse(batch.to_bytes()).unwrap();
        assert_eq!(again.header(), batch.header());
        assert_eq!(read(&again).unwrap(), records, "{codec:?}");
        assert_eq!(again.max_timestamp(), records.iter().map(|r| r.timestamp).max().unwrap());
        assert_eq!(again.next_offset(), Offset(1000));
    }
}

#[test]
fn a_new_base_offset_keeps_the_checksum_and_shares_the_records() {
    let batch = Batch::parse(build(Codec::None, &some_records(10)).to_bytes()).unwrap();
    let before = batch.chunks()[1].as_ptr();
    let moved = batch.clone().with_base(Offset(500), 3);
    assert_eq!(moved.chunks()[1].as_ptr(), before);
    assert_eq!((moved.base_offset(), moved.last_offset(), moved.header().leader_epoch), (Offset(500), Offset(509), 3));
    let again = Batch::parse(moved.to_bytes()).unwrap();
    assert_eq!(again, moved);
    assert_eq!(again.records().unwrap().iter().map(|r| r.unwrap().offset.0).collect::<Vec<_>>(), (500..510).collect::<Vec<_>>());
    let mut out = Vec::new();
    moved.push_to(&mut out);
    assert_eq!(out.concat(), moved.to_bytes());
    assert_eq!(out[1].as_ptr(), before);
    out.clear();
    again.push_to(&mut out);
    assert_eq!(out.len(), 1);
    assert_eq!(batch.base_offset(), Offset(0));
}

#[test]
fn log_append_time_is_every_records_time_and_the_checksum_is_right() {
    let batch = build(Codec::Lz4, &some_records(10)).with_base(Offset(7), 0).with_log_append_time(99);
    let again = Batch::parse(batch.to_bytes()).unwrap();
    assert_eq!(again.header().timestamp_type(), TimestampType::LogAppendTime);
    assert_eq!((again.base_offset(), again.max_timestamp()), (Offset(7), 99));
    assert!(read(&again).unwrap().iter().all(|r| r.timestamp == 99));
}

#[test]
fn a_wrong_greatest_timestamp_is_found_and_mended() {
    let batch = build(Codec::None, &some_records(10));
    let lying = Batch::parse(forged(&batch, 35, &5i64.to_be_bytes())).unwrap();
    let survey = survey_records(&lying).unwrap();
    assert_eq!(survey.max_timestamp, batch.max_timestamp());
    assert!(survey.keyless);
    let mended = lying.with_max_timestamp(survey.max_timestamp);
    assert_eq!(Batch::parse(mended.to_bytes()).unwrap(), batch);
}

#[test]
fn batches_are_split_off_one_after_another() {
    let first = build(Codec::None, &some_records(3));
    let second = build(Codec::Zstd, &some_records(4)).with_base(Offset(3), 0);
    let mut bytes = Bytes::from([first.to_bytes(), second.to_bytes(), second.to_bytes().slice(..50)].concat());
    assert_eq!(Batch::length_at(&bytes).unwrap(), first.len_bytes());
    assert_eq!(Batch::split(&mut bytes).unwrap(), Some(first));
    assert_eq!(Batch::split(&mut bytes).unwrap(), Some(second));
    assert_eq!(Batch::split(&mut bytes).unwrap(), None);
    assert_eq!(bytes.len(), 50);
    assert!(matches!(Batch::split(&mut Bytes::from_static(&[0; 4096])), Err(BatchError::Header(_))));
    assert!(Batch::split(&mut Bytes::new()).unwrap().is_none());
}

#[test]
fn a_batch_cut_at_any_length_is_truncated_and_nothing_else() {
    let whole = build(Codec::None, &some_records(5)).to_bytes();
    for cut in 0..whole.len() {
        assert!(Batch::parse(whole.slice(..cut)).unwrap_err().is_truncated(), "cut at {cut}");
        assert!(matches!(Batch::split(&mut whole.slice(..cut)), Ok(None)), "cut at {cut}");
    }
    let behind = Bytes::from([&whole[..], b"x"].concat());
    assert!(matches!(Batch::parse(behind), Err(BatchError::Trailing(1))));
}

#[test]
fn a_flipped_bit_is_found_wherever_the_checksum_covers_it() {
    let whole = build(Codec::None, &some_records(3)).to_bytes();
    for pos in 16..whole.len() {
        let mut raw = whole.to_vec();
        raw[pos] ^= 0x10;
        assert!(Batch::parse(raw.into()).is_err(), "byte {pos}");
    }
}

#[test]
fn a_count_of_two_billion_in_a_bare_header_allocates_nothing() {
    let batch = build(Codec::None, &some_records(1));
    let mut raw = forged(&batch, 57, &i32::MAX.to_be_bytes()).to_vec();
    raw.truncate(HEADER_BYTES);
    raw[8..12].copy_from_slice(&49i32.to_be_bytes());
    raw[23..27].copy_from_slice(&(i32::MAX - 1).to_be_bytes());
    let crc = crc32c::crc32c(&raw[21..]);
    raw[17..21].copy_from_slice(&crc.to_be_bytes());
    let hostile = Batch::parse(raw.into()).unwrap();
    assert!(matches!(check_records(&hostile), Err(BatchError::Count { claimed: i32::MAX, found: 0 })));
    let records = hostile.records().unwrap();
    assert_eq!(records.at_most(), 0);
    assert_eq!(records.iter().count(), 1, "one error, then the end");
}

#[test]
fn a_header_that_cannot_be_is_refused() {
    let batch = build(Codec::None, &some_records(2));
    let parse = |at, bytes: &[u8]| Batch::parse(forged(&batch, at, bytes));
    assert!(matches!(parse(16, &[1]), Err(BatchError::Magic(1))));
    assert!(matches!(parse(57, &(-1i32).to_be_bytes()), Err(BatchError::Header(_))));
    assert!(matches!(parse(23, &(-1i32).to_be_bytes()), Err(BatchError::Header(_))));
    assert!(matches!(parse(0, &i64::MAX.to_be_bytes()), Err(BatchError::Header(_))));
    assert!(matches!(parse(0, &(-5i64).to_be_bytes()), Err(BatchError::Header(_))));
    let codec_7 = parse(21, &7i16.to_be_bytes()).unwrap();
    assert!(matches!(check_records(&codec_7), Err(BatchError::Codec(7))));
    assert!(matches!(codec_7.records(), Err(BatchError::Codec(7))));
}

#[test]
fn counts_and_offsets_that_do_not_agree_are_refused() {
    let batch = build(Codec::None, &some_records(3));
    for (at, bytes) in [(57, 2i32.to_be_bytes()), (57, 4i32.to_be_bytes()), (57, 0i32.to_be_bytes()), (23, 5i32.to_be_bytes())] {
        let forged = Batch::parse(forged(&batch, at, &bytes)).unwrap();
        assert!(matches!(check_records(&forged), Err(BatchError::Count { .. })));
    }
    let mut gap = BatchBuilder::new();
    gap.push(1, None, None, &[]);
    gap.push_at_delta(5, 1, None, None, &[]);
    let gap = gap.finish();
    assert!(check_records(&gap).is_err());
    assert_eq!(gap.records().unwrap().iter().map(|r| r.unwrap().offset.0).collect::<Vec<_>>(), [0, 5]);
    assert_eq!(gap.next_offset(), Offset(6));
    // Count and last delta agree with each other and not with the records.
    let mut raw = forged(&batch, 57, &2i32.to_be_bytes()).to_vec();
    raw[23..27].copy_from_slice(&1i32.to_be_bytes());
    let crc = crc32c::crc32c(&raw[21..]);
    raw[17..21].copy_from_slice(&crc.to_be_bytes());
    assert!(matches!(check_records(&Batch::parse(raw.into()).unwrap()), Err(BatchError::Header(_))));
}

#[test]
fn control_batches_are_told_apart_and_read() {
    for marker in [ControlMarker::Abort, ControlMarker::Commit, ControlMarker::Other(9)] {
        let batch = Batch::parse(marker.batch(5, 77, 2, 0).to_bytes()).unwrap();
        assert!(batch.header().is_control() && batch.header().is_transactional());
        assert_eq!((batch.header().producer_id, batch.header().producer_epoch), (77, 2));
        let records = batch.records().unwrap();
        let key = records.iter().next().unwrap().unwrap().key;
        assert_eq!(ControlMarker::read(key), Some(marker));
    }
    assert_eq!(ControlMarker::read(Some(b"abc")), None);
}

#[test]
fn nothing_of_a_record_shows_in_debug_output() {
    let record =
        Plain { timestamp: 0, key: Some(b"Jane".to_vec()), value: Some(b"Jane".to_vec()), headers: vec![(b"Jane".to_vec(), None)] };
    let batch = build(Codec::None, &[record]);
    let records = batch.records().unwrap();
    let first = records.iter().next().unwrap().unwrap();
    let text = format!("{batch:?} {records:?} {first:?} {:?} {:?}", first.headers(), Header { key: b"Jane", value: None });
    assert!(!text.contains("Jane") && !text.contains("74, 97"), "{text}");
    assert_eq!(first.header(b"Jane"), Some(None));
    assert_eq!(first.header(b"Joe"), None);
}

#[test]
fn a_small_batch_that_unpacks_to_much_is_refused_within_the_callers_limit() {
    let mut builder = BatchBuilder::new().with_codec(Codec::Zstd);
    builder.push(0, None, Some(&vec![0; 4 << 20]), &[]);
    let batch = builder.finish();
    assert!(batch.len_bytes() < 2000);
    let error = survey_records_within(&batch, 1 << 20).unwrap_err();
    assert!(matches!(error, BatchError::Compression(CompressionError::TooLarge { .. })));
    check_records(&batch).unwrap();
}

/// The crate `kafka-protocol` is another's reading of the same format: each reads what the other writes.
#[test]
fn another_implementation_reads_and_writes_the_same_batch() {
    use kafka_protocol::records as oracle;
    let builder = BatchBuilder::new().with_producer(42, 3, 10);
    let records = some_records(20);
    let mut ours = builder;
    for r in &records {
        // The other keeps a header key once, and as text.
        let headers: Vec<_> = r.headers.iter().take(1).map(|(k, v)| Header { key: k, value: v.as_deref() }).collect();
        ours.push(r.timestamp, r.key.as_deref(), r.value.as_deref(), &headers);
    }
    let ours = ours.finish();
    let read = oracle::RecordBatchDecoder::decode(&mut ours.to_bytes()).unwrap().records;
    assert_eq!(read.len(), records.len());
    for (i, (theirs, plain)) in read.iter().zip(&records).enumerate() {
        assert_eq!((theirs.offset, theirs.timestamp, theirs.sequence), (i as i64, plain.timestamp, 10 + i as i32));
        assert_eq!((theirs.producer_id, theirs.producer_epoch), (42, 3));
        assert_eq!((theirs.key.as_deref(), theirs.value.as_deref()), (plain.key.as_deref(), plain.value.as_deref()));
        assert_eq!(theirs.headers.len(), plain.headers.len().min(1));
    }
    let mut bytes = bytes::BytesMut::new();
    let options = oracle::RecordEncodeOptions { version: 2, compression: oracle::Compression::None };
    oracle::RecordBatchEncoder::encode(&mut bytes, &read, &options).unwrap();
    let theirs = Batch::parse(bytes.freeze()).unwrap();
    assert_eq!(theirs, ours, "byte for byte");
}

fn plain() -> impl Strategy<Value = Plain> {
    let bytes = || proptest::option::of(proptest::collection::vec(any::<u8>(), 0..80));
    let headers = proptest::collection::vec((proptest::collection::vec(any::<u8>(), 0..6), bytes()), 0..5);
    (any::<i64>(), bytes(), bytes(), headers).prop_map(|(timestamp, key, value, headers)| Plain { timestamp, key, value, headers })
}

proptest! {
    #[test]
    fn whatever_is_built_is_read_back(records in proptest::collection::vec(plain(), 1..40), codec in 0i16..5, base in 0i64..1 << 50) {
        let batch = build(Codec::from_number(codec).unwrap(), &records).with_base(Offset(base), 0);
        let again = Batch::parse(batch.to_bytes()).unwrap();
        check_records(&again).unwrap();
        prop_assert_eq!(read(&again).unwrap(), records);
    }

    #[test]
    fn random_bytes_never_panic(bytes in proptest::collection::vec(any::<u8>(), 0..400)) {
        let _ = Batch::parse(bytes.clone().into());
        let _ = Batch::split(&mut bytes.clone().into());
        for codec in Codec::ALL {
            let _ = decompress(codec, &bytes, 1 << 20);
        }
    }

    /// The checksum is right, so that the damage reaches the records.
    #[test]
    fn damaged_records_never_panic(
        records in proptest::collection::vec(plain(), 1..10),
        codec in 0i16..5,
        damage in proptest::collection::vec((21usize..500, any::<u8>()), 1..6),
    ) {
        let mut raw = build(Codec::from_number(codec).unwrap(), &records).to_bytes().to_vec();
        for (at, byte) in damage {
            let at = 21 + at % (raw.len() - 21);
            raw[at] = byte;
        }
        let crc = crc32c::crc32c(&raw[21..]);
        raw[17..21].copy_from_slice(&crc.to_be_bytes());
        if let Ok(batch) = Batch::parse(raw.into()) {
            let _ = check_records(&batch);
            let _ = read(&batch);
        }
    }
}
