//! Bytes of a connection to frames and back: [`FrameReader`], [`write_chunks`].
//!
//! Always: a frame's length is judged before anything is allocated, and memory grows as bytes arrive, never
//! on the word of a length. Every frame has memory of its own, because its record batches may stay in the
//! log's cache long after it. Called by `connection`.

use std::io::{self, IoSlice};
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::{Context, Poll};

use bytes::{Buf, BufMut, Bytes, BytesMut};
use memmap2::MmapMut;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};

/// The largest request (Kafka's `socket.request.max.bytes`).
pub(super) const MAX_FRAME: usize = 100 << 20;
/// Bytes read at once while no frame has begun: all that a silent connection costs here.
const BUFFER: usize = 512;
/// The first piece of memory for a larger request.
const FIRST_PIECE: usize = 64 << 10;
/// Whoever has sent the first piece gets room for the largest request that most clients make (`max.request.size` is 1 MiB), so that
/// it is copied once at most; from there on what it may hold doubles.
const COMMON: usize = (1 << 20) + FIRST_PIECE;
/// A request of which so much has come gets pages of the system's for all of it. They take memory as they are written to, nothing is
/// copied from piece to piece, and they go back when the request is done: the allocator would keep them, and what is in use would be
/// more than is counted.
const MAPPED: usize = 4 << 20;
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
    #[error("a request of {0} bytes: at most {1} are taken (is this a Kafka client, and does it speak TLS where the listener does?)")]
    Length(i32, usize),
}

/// Cuts frames off a stream.
pub(super) struct FrameReader<R> {
    from: R,
    ahead: [u8; BUFFER],
    /// What of `ahead` was read and not yet taken.
    start: usize,
    end: usize,
}

/// A frame of which a part has come.
pub(super) struct Partial {
    at: Place,
    length: usize,
    /// So much of it may be in memory.
    granted: usize,
}

/// Where it lies.
enum Place {
    Heap(BytesMut),
    /// Pages for the whole frame, and how much has come.
    Pages(MmapMut, usize),
}

impl Partial {
    /// A frame of this length, of which nothing has come.
    pub(super) fn new(length: usize) -> Self {
        Self { at: Place::Heap(BytesMut::new()), length, granted: 0 }
    }

    /// How much of it has come.
    pub(super) fn received(&self) -> usize {
        match &self.at {
            Place::Heap(bytes) => bytes.len(),
            Place::Pages(_, have) => *have,
        }
    }

    /// Whether all of it has come.
    pub(super) fn is_whole(&self) -> bool {
        self.received() == self.length
    }

    /// How much memory it needs for what comes next: none where it has room.
    pub(super) fn needs(&self) -> usize {
        let have = self.received();
        if have < self.granted {
            return 0;
        }
        let next = if have < FIRST_PIECE { FIRST_PIECE } else { have.max(COMMON.saturating_sub(have)) };
        (self.length - have).min(next)
    }

    /// Takes the memory that it needs.
    pub(super) fn grow(&mut self) {
        let have = self.received();
        self.granted = self.granted.max(have + self.needs());
        let Place::Heap(bytes) = &mut self.at else { return };
        // Without pages, which the system may refuse, the heap does it.
        let pages = if have < MAPPED { None } else { MmapMut::map_anon(self.length).ok() };
        match pages {
            None => bytes.reserve(self.granted - have),
            Some(mut pages) => {
                pages[..have].copy_from_slice(bytes);
                self.at = Place::Pages(pages, have);
            }
        }
    }

    /// The whole frame.
    pub(super) fn freeze(self) -> Bytes {
        match self.at {
            Place::Heap(bytes) => bytes.freeze(),
            Place::Pages(pages, _) => Bytes::from_owner(pages),
        }
    }
}

impl<R: AsyncRead + Unpin> FrameReader<R> {
    pub(super) const fn new(from: R) -> Self {
        Self { from, ahead: [0; BUFFER], start: 0, end: 0 }
    }

    /// The next frame, without its length, of at most so many bytes.
    pub(super) async fn next(&mut self, most: usize) -> Result<Bytes, FrameError> {
        let length = self.length(most).await?;
        self.body(length).await
    }

    /// The length of the next frame, which is to be read next.
    pub(super) async fn length(&mut self, most: usize) -> Result<usize, FrameError> {
        let claimed = loop {
            if let Some(length) = self.ahead[self.start..self.end].first_chunk::<4>() {
                break i32::from_be_bytes(*length);
            }
            let is_between = self.start == self.end;
            if self.read_ahead().await? == 0 {
                return Err(if is_between { FrameError::Closed } else { io::Error::from(io::ErrorKind::UnexpectedEof).into() });
            }
        };
        self.start += 4;
        usize::try_from(claimed).ok().filter(|n| *n <= most).ok_or(FrameError::Length(claimed, most))
    }

    /// Reads behind what is there already, which is less than the buffer.
    async fn read_ahead(&mut self) -> io::Result<usize> {
        if self.start > 0 {
            self.ahead.copy_within(self.start..self.end, 0);
            (self.start, self.end) = (0, self.end - self.start);
        }
        let read = self.from.read(&mut self.ahead[self.end..]).await?;
        self.end += read;
        Ok(read)
    }

    /// The frame of this length.
    pub(super) async fn body(&mut self, length: usize) -> Result<Bytes, FrameError> {
        let mut frame = Partial::new(length);
        while !frame.is_whole() {
            frame.grow();
            self.more(&mut frame).await?;
        }
        Ok(frame.freeze())
    }

    /// Reads what comes next of a frame that has room for it. May be given up at any time; nothing is lost then.
    pub(super) async fn more(&mut self, frame: &mut Partial) -> Result<(), FrameError> {
        let room = frame.granted - frame.received();
        let ahead = (self.end - self.start).min(room);
        let ready = &self.ahead[self.start..self.start + ahead];
        let read = match &mut frame.at {
            _ if room == 0 => return Ok(()),
            Place::Heap(bytes) if ahead > 0 => {
                bytes.put_slice(ready);
                ahead
            }
            Place::Heap(bytes) => (&mut self.from).take(room as u64).read_buf(bytes).await?,
            Place::Pages(pages, have) => {
                let free = &mut pages[*have..*have + room];
                let read = if ahead > 0 {
                    free[..ahead].copy_from_slice(ready);
                    ahead
                } else {
                    self.from.read(free).await?
                };
                *have += read;
                read
            }
        };
        if read == 0 {
            return Err(io::Error::from(io::ErrorKind::UnexpectedEof).into());
        }
        self.start += ahead;
        Ok(())
    }

    /// Completes when the client has gone. Does not, where it has sent the next request already.
    pub(super) async fn gone(&mut self) {
        if self.start < self.end || matches!(self.read_ahead().await, Ok(read) if read > 0) {
            std::future::pending::<()>().await;
        }
    }
}

/// Counts what is written.
pub(super) struct Counted<W> {
    to: W,
    written: Arc<AtomicUsize>,
}

impl<W> Counted<W> {
    /// The same writer, and how much has been written so far.
    pub(super) fn new(to: W) -> (Self, Arc<AtomicUsize>) {
        let written = Arc::new(AtomicUsize::new(0));
        (Self { to, written: Arc::clone(&written) }, written)
    }

    fn count(&self, polled: Poll<io::Result<usize>>) -> Poll<io::Result<usize>> {
        if let Poll::Ready(Ok(written)) = &polled {
            self.written.fetch_add(*written, Ordering::Relaxed);
        }
        polled
    }
}

impl<W: AsyncWrite + Unpin> AsyncWrite for Counted<W> {
    fn poll_write(mut self: Pin<&mut Self>, context: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let polled = Pin::new(&mut self.to).poll_write(context, bytes);
        self.count(polled)
    }

    fn poll_write_vectored(mut self: Pin<&mut Self>, context: &mut Context<'_>, pieces: &[IoSlice<'_>]) -> Poll<io::Result<usize>> {
        let polled = Pin::new(&mut self.to).poll_write_vectored(context, pieces);
        self.count(polled)
    }

    fn is_write_vectored(&self) -> bool {
        self.to.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.to).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.to).poll_shutdown(context)
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
            match reader.next(MAX_FRAME).await {
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
    async fn a_large_frame_comes_whole_through_heap_and_pages() {
        let body: Vec<u8> = (0..9_000_001_u32).map(|n| (n % 251) as u8).collect();
        let mut bytes = (body.len() as i32).to_be_bytes().to_vec();
        bytes.extend_from_slice(&body);
        bytes.extend_from_slice(&[0, 0, 0, 1, 9]);
        let mut reader = FrameReader::new(bytes.as_slice());
        let length = reader.length(MAX_FRAME).await.unwrap();
        let mut frame = Partial::new(length);
        let mut most = 0;
        while !frame.is_whole() {
            // Never more than has come once more, or than most send.
            most = most.max(frame.needs());
            assert!(frame.needs() <= frame.received().max(COMMON));
            frame.grow();
            reader.more(&mut frame).await.unwrap();
        }
        assert!(matches!(frame.at, Place::Pages(..)) && most > 1 << 20);
        assert_eq!(frame.freeze(), body);
        assert_eq!(reader.next(MAX_FRAME).await.unwrap(), [9][..]);
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
        fn poll_write(mut self: Pin<&mut Self>, _: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
            let taken = bytes.len().min(3);
            self.0.extend_from_slice(&bytes[..taken]);
            Poll::Ready(Ok(taken))
        }
        fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
            Poll::Ready(Ok(()))
        }
        fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
            Poll::Ready(Ok(()))
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
