//! Bytes of a connection to frames and back: [`FrameReader`], [`write_chunks`].
//!
//! Always: a frame's length is judged before anything is allocated, and memory grows as bytes arrive, never
//! on the word of a length. Every frame has memory of its own, because its record batches may stay in the
//! log's cache long after it. Called by `connection`.

use std::io::{self, IoSlice};

use bytes::{Buf, Bytes, BytesMut};
use tokio::io::{AsyncBufReadExt, AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, BufReader};

/// The largest request (Kafka's `socket.request.max.bytes`).
pub(super) const MAX_FRAME: usize = 100 << 20;
/// Bytes read at once for small requests.
const BUFFER: usize = 16 << 10;
/// The first piece of memory for a larger request; then it doubles.
const FIRST_PIECE: usize = 64 << 10;
/// Pieces written with one system call.
const PIECES: usize = 256;

/// Why no more frames come.
#[derive(Debug, thiserror::Error)]
pub(super) enum FrameError {
    /// The client has closed the connection between two requests.
    #[error("closed by the client")]
    Closed,
    /// It broke.
    #[error("connection lost: {0}")]
    Lost(#[from] io::Error),
    /// A length that no request has.
    #[error("a request of {0} bytes: at most {MAX_FRAME} are taken (is this a Kafka client, and without TLS?)")]
    Length(i32),
}

/// Cuts frames off a stream.
pub(super) struct FrameReader<R> {
    from: BufReader<R>,
}

impl<R: AsyncRead + Unpin> FrameReader<R> {
    pub(super) fn new(from: R) -> Self {
        Self { from: BufReader::with_capacity(BUFFER, from) }
    }

    /// The next frame, without its length.
    pub(super) async fn next(&mut self) -> Result<Bytes, FrameError> {
        if self.from.fill_buf().await?.is_empty() {
            return Err(FrameError::Closed);
        }
        let claimed = self.from.read_i32().await?;
        let length = usize::try_from(claimed).ok().filter(|n| *n <= MAX_FRAME).ok_or(FrameError::Length(claimed))?;
        let mut frame = BytesMut::with_capacity(length.min(FIRST_PIECE));
        while frame.len() < length {
            let missing = length - frame.len();
            if frame.len() == frame.capacity() {
                frame.reserve(missing.min(frame.len().max(FIRST_PIECE)));
            }
            if (&mut self.from).take(missing as u64).read_buf(&mut frame).await? == 0 {
                return Err(io::Error::from(io::ErrorKind::UnexpectedEof).into());
            }
        }
        Ok(frame.freeze())
    }

    /// Completes when the client has gone. Does not, where it has sent the next request already.
    pub(super) async fn gone(&mut self) {
        if matches!(self.from.fill_buf().await, Ok(bytes) if !bytes.is_empty()) {
            std::future::pending::<()>().await;
        }
    }
}

/// Writes pieces one after another, many with each system call and none of them copied.
pub(super) async fn write_chunks<W: AsyncWrite + Unpin>(to: &mut W, mut chunks: Vec<Bytes>) -> io::Result<()> {
    chunks.retain(|chunk| !chunk.is_empty());
    let mut next = 0;
    while next < chunks.len() {
        let slices: Vec<IoSlice<'_>> = chunks[next..].iter().take(PIECES).map(|chunk| IoSlice::new(chunk)).collect();
        let mut written = to.write_vectored(&slices).await?;
        if written == 0 {
            return Err(io::ErrorKind::WriteZero.into());
        }
        while next < chunks.len() && written >= chunks[next].len() {
            written -= chunks[next].len();
            // Let go of it: it may be the last reader of a piece of the cache.
            chunks[next] = Bytes::new();
            next += 1;
        }
        if written > 0 {
            chunks[next].advance(written);
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    async fn read_all(bytes: &[u8]) -> (Vec<usize>, String) {
        let mut reader = FrameReader::new(bytes);
        let mut lengths = Vec::new();
        loop {
            match reader.next().await {
                Ok(frame) => lengths.push(frame.len()),
                Err(error) => return (lengths, error.to_string()),
            }
        }
    }

    #[tokio::test]
    async fn frames_are_cut_at_their_lengths() {
        let mut bytes = Vec::new();
        for length in [0_usize, 3, 70_000, 200_000] {
            bytes.extend_from_slice(&(length as i32).to_be_bytes());
            bytes.resize(bytes.len() + length, 7);
        }
        assert_eq!(read_all(&bytes).await, (vec![0, 3, 70_000, 200_000], "closed by the client".to_owned()));
        let (whole, why) = read_all(&bytes[..bytes.len() - 1]).await;
        assert_eq!(whole.len(), 3);
        assert!(why.contains("connection lost"), "{why}");
    }

    #[tokio::test]
    async fn an_impossible_length_is_refused_before_anything_is_allocated() {
        for claimed in [-1_i32, i32::MIN, i32::MAX, (MAX_FRAME + 1) as i32, 0x1603_0100] {
            let (frames, why) = read_all(&claimed.to_be_bytes()).await;
            assert!(frames.is_empty() && why.contains(&claimed.to_string()), "{why}");
        }
        // A length that may be, and nothing behind it: little memory is taken.
        let (_, why) = read_all(&(MAX_FRAME as i32).to_be_bytes()).await;
        assert!(why.contains("connection lost"), "{why}");
    }

    /// Takes a few bytes with each write.
    struct Slow(Vec<u8>);

    impl AsyncWrite for Slow {
        fn poll_write(
            mut self: std::pin::Pin<&mut Self>,
            _: &mut std::task::Context<'_>,
            bytes: &[u8],
        ) -> std::task::Poll<io::Result<usize>> {
            let taken = bytes.len().min(3);
            self.0.extend_from_slice(&bytes[..taken]);
            std::task::Poll::Ready(Ok(taken))
        }
        fn poll_flush(self: std::pin::Pin<&mut Self>, _: &mut std::task::Context<'_>) -> std::task::Poll<io::Result<()>> {
            std::task::Poll::Ready(Ok(()))
        }
        fn poll_shutdown(self: std::pin::Pin<&mut Self>, _: &mut std::task::Context<'_>) -> std::task::Poll<io::Result<()>> {
            std::task::Poll::Ready(Ok(()))
        }
    }

    #[tokio::test]
    async fn pieces_arrive_whole_and_in_order_however_little_is_taken_at_once() {
        let mut to = Slow(Vec::new());
        let pieces = ["one", "", "three", "four and more", "5"].map(|p| Bytes::from_static(p.as_bytes()));
        write_chunks(&mut to, pieces.to_vec()).await.unwrap();
        assert_eq!(to.0, b"onethreefour and more5");
    }
}
