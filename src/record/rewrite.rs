//! A batch with fewer records: what compaction leaves of one.
//!
//! Pure. Always: the offsets of the records that stay, the batch's first and last offset, its producer and its leader epoch are what
//! they were, so that readers, producers and indexes find what they know. The time from which deletion marks may go is kept as Kafka
//! keeps it: bit 6 of the attributes says that the base timestamp is that time. Called by `log`'s compaction.

use super::batch::{ATTRIBUTE_DELETE_HORIZON, Batch, BatchError, BatchHeader, HEADER_BYTES, TimestampType};
use super::compression::compress_onto;
use super::records::RecordRef;
use super::varint::{put_varint, varint_len};

impl Batch {
    /// The same batch with those of its records only for which `stays` says so, its deletion marks going at `delete_horizon`, in
    /// milliseconds. `None` where no record stays.
    pub fn filtered(&self, delete_horizon: Option<i64>, mut stays: impl FnMut(&RecordRef<'_>) -> bool) -> Result<Option<Self>, BatchError> {
        let old = *self.header();
        let codec = old.codec()?;
        let records = self.records()?;
        let mut plain = vec![0; HEADER_BYTES];
        let mut header = BatchHeader { count: 0, max_timestamp: -1, ..old };
        for record in &records {
            let record = record?;
            if !stays(&record) {
                continue;
            }
            if header.count == 0 {
                header.base_timestamp = delete_horizon.unwrap_or(record.timestamp);
            }
            header.count += 1;
            header.max_timestamp = header.max_timestamp.max(record.timestamp);
            put_record(&mut plain, &record, record.timestamp.wrapping_sub(header.base_timestamp), record.offset.0 - old.base_offset)?;
        }
        if header.count == 0 {
            return Ok(None);
        }
        if old.timestamp_type() == TimestampType::LogAppendTime {
            header.max_timestamp = old.max_timestamp;
        }
        header.attributes = old.attributes & !ATTRIBUTE_DELETE_HORIZON;
        if delete_horizon.is_some() {
            header.attributes |= ATTRIBUTE_DELETE_HORIZON;
        }
        let bytes = if codec == super::Codec::None {
            plain
        } else {
            let mut packed = vec![0; HEADER_BYTES];
            compress_onto(codec, &plain[HEADER_BYTES..], &mut packed);
            packed
        };
        header.batch_length = i32::try_from(bytes.len() - 12).map_err(|_| BatchError::Header("what stays of it is too long"))?;
        Ok(Some(Self::sealed(header, bytes)))
    }

    /// The batch's head alone: what stays where its records go and what it says of its producer must not.
    #[must_use]
    pub fn emptied(&self) -> Self {
        let old = *self.header();
        let attributes = old.attributes & !(ATTRIBUTE_DELETE_HORIZON | super::batch::ATTRIBUTE_CODEC);
        let header = BatchHeader { count: 0, attributes, base_timestamp: -1, batch_length: (HEADER_BYTES - 12) as i32, ..old };
        Self::sealed(header, vec![0; HEADER_BYTES])
    }
}

fn put_record(out: &mut Vec<u8>, record: &RecordRef<'_>, timestamp_delta: i64, offset_delta: i64) -> Result<(), BatchError> {
    let (headers, header_count) = record.raw_headers();
    let field = |field: Option<&[u8]>| field.map_or(1, |bytes| varint_len(bytes.len() as i64) + bytes.len());
    let length = 1
        + varint_len(timestamp_delta)
        + varint_len(offset_delta)
        + field(record.key)
        + field(record.value)
        + varint_len(i64::from(header_count))
        + headers.len();
    i32::try_from(length).map_err(|_| BatchError::Header("a record of it is too long"))?;
    put_varint(out, length as i64);
    out.push(0);
    put_varint(out, timestamp_delta);
    put_varint(out, offset_delta);
    for field in [record.key, record.value] {
        match field {
            None => put_varint(out, -1),
            Some(bytes) => {
                put_varint(out, bytes.len() as i64);
                out.extend_from_slice(bytes);
            }
        }
    }
    put_varint(out, i64::from(header_count));
    out.extend_from_slice(headers);
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::super::{BatchBuilder, Codec, Header, Offset};
    use super::*;

    fn batch(codec: Codec) -> Batch {
        let mut builder = BatchBuilder::new().with_codec(codec).with_producer(7, 3, 40).transactional();
        for i in 0..6_i64 {
            let key = [b'a' + i as u8];
            let value = (i != 2).then_some(b"value".as_slice());
            builder.push(1000 - i * 10, Some(&key), value, &[Header { key: b"h", value: None }, Header { key: b"i", value: Some(b"1") }]);
        }
        builder.finish().with_base(Offset(100), 0)
    }

    fn seen(batch: &Batch) -> Vec<(i64, i64, u8, bool)> {
        let records = batch.records().unwrap();
        let records = records.iter().map(Result::unwrap);
        records.map(|r| (r.offset.0, r.timestamp, r.key.unwrap()[0], r.header(b"i") == Some(Some(b"1")))).collect()
    }

    #[test]
    fn what_stays_keeps_its_offsets_times_and_headers_and_the_batch_its_range_and_producer() {
        for codec in [Codec::None, Codec::Lz4, Codec::Gzip, Codec::Snappy, Codec::Zstd] {
            let whole = batch(codec);
            for horizon in [None, Some(5_000_000)] {
                let less = whole.filtered(horizon, |r| r.offset.0 % 2 == 0).unwrap().unwrap();
                let read = Batch::parse(less.to_bytes()).unwrap();
                assert_eq!(seen(&read), [(100, 1000, b'a', true), (102, 980, b'c', true), (104, 960, b'e', true)]);
                assert_eq!((read.base_offset(), read.last_offset(), read.max_timestamp()), (Offset(100), Offset(105), 1000));
                let (header, old) = (read.header(), whole.header());
                assert_eq!((header.producer_id, header.producer_epoch, header.base_sequence), (7, 3, 40));
                assert_eq!((header.is_transactional(), header.codec().unwrap(), header.leader_epoch), (true, codec, old.leader_epoch));
                assert_eq!(header.delete_horizon(), horizon);
                // And once more, keeping the time.
                let again = read.filtered(header.delete_horizon(), |r| r.offset.0 != 104).unwrap().unwrap();
                assert_eq!(seen(&again), [(100, 1000, b'a', true), (102, 980, b'c', true)]);
                assert_eq!(again.header().delete_horizon(), horizon);
            }
            assert!(whole.filtered(None, |_| false).unwrap().is_none());
        }
    }

    #[test]
    fn an_emptied_batch_is_a_head_that_says_where_its_producer_was() {
        let empty = Batch::parse(batch(Codec::Zstd).emptied().to_bytes()).unwrap();
        assert_eq!((empty.len_bytes(), empty.header().count, empty.records().unwrap().iter().count()), (HEADER_BYTES, 0, 0));
        assert_eq!((empty.base_offset(), empty.last_offset()), (Offset(100), Offset(105)));
        assert_eq!((empty.header().producer_id, empty.header().base_sequence, empty.header().is_transactional()), (7, 40, true));
        assert_eq!(empty.max_timestamp(), 1000);
    }
}
