//! The four codecs of Kafka's record batch, read within bounds and written as the Java client reads them.
//!
//! Always: decompressing allocates as data really comes out, up to the caller's limit, whatever size the
//! input claims. Snappy is read raw (librdkafka) and in the Xerial frame (Java, kafka-python) and written
//! in the frame; LZ4 is the frame format, with or without checksums, linked blocks or not, and is written
//! with independent blocks, the only ones the Java client reads. Called by `batch` and `build`.

use std::io::{self, Read, Write};

/// No batch unpacks to more than this: what could not be sent as it is (a request has at most as many bytes) may not be
/// sent packed either.
pub const MAX_DECOMPRESSED: usize = 100 << 20;

/// How the records of a batch are packed. The numbers are the wire's.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Codec {
    /// As they are.
    #[default]
    None = 0,
    /// gzip, RFC 1952.
    Gzip = 1,
    /// Snappy in the Xerial frame.
    Snappy = 2,
    /// The LZ4 frame format.
    Lz4 = 3,
    /// Zstandard, RFC 8878.
    Zstd = 4,
}

impl Codec {
    /// Every codec, in the order of their numbers.
    pub const ALL: [Self; 5] = [Self::None, Self::Gzip, Self::Snappy, Self::Lz4, Self::Zstd];

    /// The codec with this number on the wire (the low three bits of a batch's attributes).
    #[must_use]
    pub const fn from_number(number: i16) -> Option<Self> {
        match number {
            0 => Some(Self::None),
            1 => Some(Self::Gzip),
            2 => Some(Self::Snappy),
            3 => Some(Self::Lz4),
            4 => Some(Self::Zstd),
            _ => None,
        }
    }

    /// The name that `compression.type` uses.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::None => "none",
            Self::Gzip => "gzip",
            Self::Snappy => "snappy",
            Self::Lz4 => "lz4",
            Self::Zstd => "zstd",
        }
    }

    /// The codec that `compression.type` names so.
    #[must_use]
    pub fn from_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|codec| codec.name() == name)
    }
}

/// Why packed bytes could not be unpacked.
#[derive(Debug, thiserror::Error)]
pub enum CompressionError {
    /// The bytes are not what the codec writes.
    #[error("the {} data is damaged: {reason}", codec.name())]
    Damaged {
        /// Which codec was asked to read them.
        codec: Codec,
        /// What it said.
        reason: String,
    },
    /// There is more in there than the caller wants to hold.
    #[error("the data unpacks to more than {limit} bytes")]
    TooLarge {
        /// The caller's limit.
        limit: usize,
    },
}

/// Unpacks `bytes`, at most `limit` bytes of result.
pub fn decompress(codec: Codec, bytes: &[u8], limit: usize) -> Result<Vec<u8>, CompressionError> {
    let damaged = |error: io::Error| CompressionError::Damaged { codec, reason: error.to_string() };
    let mut out = Vec::new();
    match codec {
        Codec::None if bytes.len() > limit => return Err(CompressionError::TooLarge { limit }),
        Codec::None => out.extend_from_slice(bytes),
        Codec::Gzip => read_bounded(flate2::bufread::MultiGzDecoder::new(bytes), limit, &mut out).map_err(damaged)?,
        Codec::Snappy => return decompress_snappy(bytes, limit),
        Codec::Lz4 => decompress_lz4(bytes, limit, &mut out)?,
        Codec::Zstd => {
            // The decoder's own limit on a frame's window (128 MiB) holds; the window is touched only as data fills it.
            let decoder = zstd::stream::read::Decoder::with_buffer(bytes).map_err(damaged)?;
            read_bounded(decoder, limit, &mut out).map_err(damaged)?;
        }
    }
    if out.len() > limit { Err(CompressionError::TooLarge { limit }) } else { Ok(out) }
}

/// Reads to the end or to one byte more than `limit` in all, growing as data comes.
fn read_bounded(reader: impl Read, limit: usize, out: &mut Vec<u8>) -> io::Result<()> {
    let room = limit.saturating_add(1).saturating_sub(out.len());
    reader.take(room as u64).read_to_end(out)?;
    Ok(())
}

const LZ4_MAGIC: &[u8; 4] = &0x184d_2204u32.to_le_bytes();

/// Reads frames up to the end: at least one, and what a client appends as further frames belongs to the data too.
fn decompress_lz4(mut bytes: &[u8], limit: usize, out: &mut Vec<u8>) -> Result<(), CompressionError> {
    let damaged = |reason: &str| CompressionError::Damaged { codec: Codec::Lz4, reason: reason.to_owned() };
    loop {
        // The decoder forgives a frame without an end and the Java client does not: we find the end ourselves.
        let length = lz4_frame_length(bytes).ok_or_else(|| damaged("the frame is not whole"))?;
        let (frame, behind) = bytes.split_at(length);
        read_bounded(lz4_flex::frame::FrameDecoder::new(frame), limit, out).map_err(|e| damaged(&e.to_string()))?;
        bytes = behind;
        if bytes.is_empty() || out.len() > limit {
            return Ok(());
        }
    }
}

/// The length of the whole LZ4 frame at the front, end mark and checksums included.
fn lz4_frame_length(bytes: &[u8]) -> Option<usize> {
    let flags = *bytes.strip_prefix(LZ4_MAGIC)?.first()?;
    let has = |bit: u8, size: usize| if flags & bit == 0 { 0 } else { size };
    // Magic, flags, block descriptor, content size, dictionary id, header checksum.
    let mut pos = 4 + 2 + has(0x08, 8) + has(0x01, 4) + 1;
    loop {
        let size = u32::from_le_bytes(*bytes.get(pos..)?.first_chunk()?);
        pos += 4;
        if size == 0 {
            pos += has(0x04, 4);
            return (pos <= bytes.len()).then_some(pos);
        }
        pos += (size & 0x7fff_ffff) as usize + has(0x10, 4);
    }
}

const XERIAL_MAGIC: &[u8; 8] = b"\x82SNAPPY\0";
/// Magic, version, lowest compatible version.
const XERIAL_HEADER_BYTES: usize = 16;
/// The block size of the Java library.
const XERIAL_BLOCK_BYTES: usize = 32 * 1024;

fn decompress_snappy(bytes: &[u8], limit: usize) -> Result<Vec<u8>, CompressionError> {
    let mut out = Vec::new();
    if !bytes.starts_with(XERIAL_MAGIC) {
        unpack_snappy_block(bytes, limit, &mut out)?;
        return Ok(out);
    }
    let mut rest = bytes.get(XERIAL_HEADER_BYTES..).ok_or_else(|| snappy_damaged("the frame's header is cut off"))?;
    while !rest.is_empty() {
        let (length, behind) = rest.split_first_chunk::<4>().ok_or_else(|| snappy_damaged("a block's length is cut off"))?;
        let length = u32::from_be_bytes(*length) as usize;
        let block = behind.get(..length).ok_or_else(|| snappy_damaged("a block is cut off"))?;
        unpack_snappy_block(block, limit, &mut out)?;
        rest = &behind[length..];
    }
    Ok(out)
}

/// Unpacks one raw block behind what `out` holds. A block's claimed size is believed only up to what
/// Snappy can reach: its best element makes 64 bytes out of 3.
fn unpack_snappy_block(block: &[u8], limit: usize, out: &mut Vec<u8>) -> Result<(), CompressionError> {
    let claimed = snap::raw::decompress_len(block).map_err(|e| snappy_damaged(&e.to_string()))?;
    if claimed > block.len().saturating_mul(22) {
        return Err(snappy_damaged("a block claims more than its bytes can hold"));
    }
    if claimed > limit.saturating_sub(out.len()) {
        return Err(CompressionError::TooLarge { limit });
    }
    let start = out.len();
    out.resize(start + claimed, 0);
    let written = snap::raw::Decoder::new().decompress(block, &mut out[start..]).map_err(|e| snappy_damaged(&e.to_string()))?;
    out.truncate(start + written);
    Ok(())
}

fn snappy_damaged(reason: &str) -> CompressionError {
    CompressionError::Damaged { codec: Codec::Snappy, reason: reason.to_owned() }
}

/// Packs `bytes`.
#[must_use]
pub fn compress(codec: Codec, bytes: &[u8]) -> Vec<u8> {
    let mut out = Vec::new();
    compress_onto(codec, bytes, &mut out);
    out
}

/// Packs `bytes` behind what `out` already holds.
pub(super) fn compress_onto(codec: Codec, bytes: &[u8], out: &mut Vec<u8>) {
    let done = match codec {
        Codec::None => out.write_all(bytes),
        Codec::Gzip => compress_gzip(bytes, out),
        Codec::Snappy => compress_snappy(bytes, out),
        Codec::Lz4 => compress_lz4(bytes, out),
        Codec::Zstd => zstd::stream::copy_encode(bytes, out, zstd::DEFAULT_COMPRESSION_LEVEL),
    };
    done.expect("packing from memory into memory meets no error");
}

fn compress_gzip(bytes: &[u8], out: &mut Vec<u8>) -> io::Result<()> {
    let mut encoder = flate2::write::GzEncoder::new(out, flate2::Compression::default());
    encoder.write_all(bytes)?;
    encoder.finish().map(drop)
}

fn compress_lz4(bytes: &[u8], out: &mut Vec<u8>) -> io::Result<()> {
    let info = lz4_flex::frame::FrameInfo::new()
        .block_size(lz4_flex::frame::BlockSize::Max64KB)
        .block_mode(lz4_flex::frame::BlockMode::Independent);
    let mut encoder = lz4_flex::frame::FrameEncoder::with_frame_info(info, out);
    encoder.write_all(bytes)?;
    encoder.finish().map(drop).map_err(io::Error::other)
}

fn compress_snappy(bytes: &[u8], out: &mut Vec<u8>) -> io::Result<()> {
    out.extend_from_slice(XERIAL_MAGIC);
    out.extend_from_slice(&1i32.to_be_bytes());
    out.extend_from_slice(&1i32.to_be_bytes());
    let mut encoder = snap::raw::Encoder::new();
    let mut packed = vec![0; snap::raw::max_compress_len(XERIAL_BLOCK_BYTES.min(bytes.len()))];
    for block in bytes.chunks(XERIAL_BLOCK_BYTES) {
        let length = encoder.compress(block, &mut packed).map_err(io::Error::other)?;
        out.extend_from_slice(&(length as u32).to_be_bytes());
        out.extend_from_slice(&packed[..length]);
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sample(len: usize) -> Vec<u8> {
        (0..len).map(|i| (i / 7 % 31) as u8 ^ (i % 3) as u8).collect()
    }

    #[test]
    fn every_codec_gives_back_what_went_in() {
        for codec in Codec::ALL {
            for len in [0, 1, 60, 32 * 1024, 32 * 1024 + 1, 300_000] {
                let packed = compress(codec, &sample(len));
                assert_eq!(decompress(codec, &packed, len).unwrap(), sample(len), "{codec:?} {len}");
            }
        }
    }

    #[test]
    fn raw_snappy_is_read_too() {
        let packed = snap::raw::Encoder::new().compress_vec(&sample(100_000)).unwrap();
        assert_eq!(decompress(Codec::Snappy, &packed, 100_000).unwrap(), sample(100_000));
    }

    #[test]
    fn lz4_frames_of_every_make_are_read() {
        use lz4_flex::frame::{BlockMode, BlockSize, FrameEncoder, FrameInfo};
        for linked in [BlockMode::Linked, BlockMode::Independent] {
            for checks in [false, true] {
                for size in [BlockSize::Max64KB, BlockSize::Max4MB] {
                    let info = FrameInfo::new().block_mode(linked).block_size(size).content_checksum(checks).block_checksums(checks);
                    let mut encoder = FrameEncoder::with_frame_info(info, Vec::new());
                    encoder.write_all(&sample(200_000)).unwrap();
                    let one = encoder.finish().unwrap();
                    assert_eq!(decompress(Codec::Lz4, &one, 200_000).unwrap(), sample(200_000));
                    let two = decompress(Codec::Lz4, &[one.clone(), one].concat(), 400_000).unwrap();
                    assert_eq!(two, [sample(200_000), sample(200_000)].concat());
                }
            }
        }
    }

    #[test]
    fn a_bomb_stops_at_the_limit() {
        let zeros = vec![0; 8 << 20];
        for codec in Codec::ALL {
            let packed = compress(codec, &zeros);
            assert!(matches!(decompress(codec, &packed, 100_000), Err(CompressionError::TooLarge { limit: 100_000 })), "{codec:?}");
        }
    }

    #[test]
    fn a_snappy_block_that_claims_too_much_is_refused_before_anything_is_allocated() {
        let claim = [0xff, 0xff, 0xff, 0xff, 0x0f, 0, 0];
        assert!(matches!(decompress(Codec::Snappy, &claim, usize::MAX), Err(CompressionError::Damaged { .. })));
    }

    #[test]
    fn snappys_own_best_ratio_lies_within_what_is_believed() {
        let packed = snap::raw::Encoder::new().compress_vec(&vec![7; 10 << 20]).unwrap();
        assert_eq!(decompress(Codec::Snappy, &packed, 10 << 20).unwrap().len(), 10 << 20);
    }

    #[test]
    fn data_cut_anywhere_is_an_error_or_a_shorter_whole() {
        for codec in [Codec::Gzip, Codec::Snappy, Codec::Lz4, Codec::Zstd] {
            let packed = compress(codec, &sample(5000));
            for cut in 0..packed.len() {
                if let Ok(out) = decompress(codec, &packed[..cut], 1 << 20) {
                    assert!(sample(5000).starts_with(&out) && out.len() < 5000, "{codec:?} cut at {cut}");
                }
            }
        }
    }
}
