//! One connection: requests in, responses out, in the same order.
//!
//! Requests are served one after another, as Kafka does, but for Produce: its batches get their place in the log
//! in the order of the requests, and the wait for the disk happens in the queue of responses, so that many
//! requests of one connection ride on one sync. Always: at most [`PIPELINE`] responses wait; where the listener asks who
//! a client is, nothing is served before it has said so; a request that cannot be read or is not served closes the
//! connection, except an ApiVersions of an unknown version, whose client is told which there are. Called by `listener`.

use std::io;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::task::Poll;
use std::time::{Duration, Instant};

use bytes::Bytes;
use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt};
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use super::api_produce::{self, Acknowledgement};
use super::authorize::{self, Finish, Verdict};
use super::dispatch::{self, Caller};
use super::frame::{Counted, FrameError, FrameReader, MAX_FRAME, Partial, write_chunks};
use super::listener::{INTRODUCTION, Places};
use super::memory::{Held, Memory, Pace, SMALL_REQUEST};
use super::quota;
use super::sasl::{Authentication, SaslTerms, Session, Step};
use crate::broker::Broker;
use crate::broker::security::QuotaKey;
use crate::wire::{
    ApiKey, FailureReason, ProduceRequest, Request, RequestHeader, Response, decode_request, encode_response_chunks,
    unsupported_api_versions,
};

/// Responses that may wait on one connection.
const PIPELINE: usize = 512;
/// Pieces of acknowledgements that are written at once.
const TOGETHER: usize = 64;
/// A connection that is silent for so long is closed (Kafka's `connections.max.idle.ms`).
const IDLE: Duration = Duration::from_secs(600);
/// How long responses may still be written after the stop.
const FAREWELL: Duration = Duration::from_secs(5);
/// The largest message of someone who has not said who they are: no password is longer, and strangers hold no memory.
const MAX_STRANGERS_FRAME: usize = SMALL_REQUEST;
/// How long a small request may take.
const SMALL_PATIENCE: Duration = Duration::from_secs(60);
/// How often it is looked at how fast a larger one comes in.
const LOOK: Duration = Duration::from_secs(1);

/// What the writer does next.
enum Reply {
    /// Write these bytes, which hold this memory.
    Ready(Vec<Bytes>, Option<Held>),
    /// Wait for the disk, then write.
    Later(Box<Later>),
}

/// An acknowledgement, and what belongs to its answer.
struct Later {
    header: RequestHeader,
    acknowledgement: Acknowledgement,
    finish: Option<Finish>,
    put_off: Duration,
    began: Instant,
    /// The request's memory, which the log's queue holds as long.
    _memory: Option<Held>,
}

/// Serves one connection until it ends.
pub(super) async fn serve<R, W>(read: R, write: W, caller: Caller, places: Arc<Places>, stop: CancellationToken)
where
    R: AsyncRead + Unpin,
    W: AsyncWrite + Unpin,
{
    let (replies, queue) = mpsc::channel(PIPELINE);
    let remote = caller.peer.remote;
    let broker = Arc::clone(&caller.peer.broker);
    let answers = Arc::clone(&places.answers);
    let reading = Reading { from: FrameReader::new(read), caller, replies, places, stop, session: None };
    let mut writer = std::pin::pin!(write_replies(write, queue, &broker, &answers));
    let mut requests = std::pin::pin!(reading.run());
    let why = tokio::select! {
        why = &mut requests => why,
        error = &mut writer => {
            // The client does not read any more, so there is nothing left to do for it.
            tracing::debug!(%remote, error = ?error.err(), "connection closed while writing");
            return;
        }
    };
    match why {
        Ending::Stopped | Ending::Idle | Ending::Frame(FrameError::Closed) => tracing::debug!(%remote, %why, "connection closed"),
        Ending::Frame(FrameError::Lost(_)) => tracing::debug!(%remote, %why, "connection closed"),
        Ending::Frame(FrameError::Length(..)) | Ending::Refused(_) => tracing::warn!(%remote, %why, "connection closed"),
        Ending::Acks0(_) | Ending::Stranger(_) | Ending::Slow(_) => tracing::info!(%remote, %why, "connection closed"),
    }
    // What was answered before still goes out.
    if tokio::time::timeout(FAREWELL, writer).await.is_err() {
        tracing::debug!(%remote, "connection closed before everything was written");
    }
}

/// Why a connection takes no more requests.
#[derive(Debug, thiserror::Error)]
enum Ending {
    #[error("the node is stopping")]
    Stopped,
    #[error("silent for too long")]
    Idle,
    #[error("{0}")]
    Slow(&'static str),
    #[error(transparent)]
    Frame(#[from] FrameError),
    #[error("{0}")]
    Refused(String),
    #[error("not authenticated: {0}")]
    Stranger(String),
    #[error("a produce request without acknowledgement failed: {0}")]
    Acks0(String),
}

/// The half that takes requests.
struct Reading<R> {
    from: FrameReader<R>,
    caller: Caller,
    replies: mpsc::Sender<Reply>,
    places: Arc<Places>,
    stop: CancellationToken,
    session: Option<Session>,
}

impl<R: AsyncRead + Unpin> Reading<R> {
    async fn run(mut self) -> Ending {
        if self.caller.peer.listener.sasl.is_some()
            && let Err(ending) = Box::pin(self.introduce(Authentication::new(), None)).await
        {
            return ending;
        }
        loop {
            if let Err(ending) = self.turn().await {
                return ending;
            }
        }
    }

    /// One request.
    async fn turn(&mut self) -> Result<(), Ending> {
        let (frame, memory) = self.frame().await?;
        if self.session.as_ref().is_some_and(|session| session.is_over(Instant::now()))
            && !matches!(frame.first_chunk(), Some(key) if i16::from_be_bytes(*key) == ApiKey::SaslHandshake.code())
        {
            return Err(Ending::Stranger("the session is over".to_owned()));
        }
        let began = Instant::now();
        let length = frame.len();
        match decode_request(frame) {
            // In boxes, so that a connection that waits for its next request does not carry the room to serve one.
            Ok((header, Request::Produce(request))) => Box::pin(self.produce(header, request, began, length, memory)).await,
            Ok((header, Request::SaslHandshake(request)))
                if self.session.as_ref().is_some_and(Session::is_renewable) && self.caller.peer.listener.sasl.is_some() =>
            {
                self.caller.header = header;
                let session = self.session.clone().expect("there is a session to renew");
                Box::pin(self.introduce(Authentication::again(session), Some(request.mechanism))).await
            }
            Ok((header, request)) => Box::pin(self.request(header, request, began)).await,
            Err(failure) => match (failure.header, failure.reason) {
                (Some(header), FailureReason::UnsupportedVersion { key, version }) if key == ApiKey::ApiVersions.code() => {
                    tracing::debug!(version, client = header.client_id.as_deref(), "told a client which versions of ApiVersions there are");
                    self.reply(Reply::Ready(vec![unsupported_api_versions(&header)], None)).await
                }
                (header, reason) => {
                    let client = header.and_then(|h| h.client_id).unwrap_or_default();
                    let software = self.caller.software();
                    Err(Ending::Refused(format!("{reason} (client id \"{}\", software {software})", printable(&client))))
                }
            },
        }
    }

    /// The next frame, and the memory that it has been given.
    async fn frame(&mut self) -> Result<(Bytes, Option<Held>), Ending> {
        let memory = &self.places.memory;
        let from = &mut self.from;
        let read = async {
            let length = tokio::time::timeout(IDLE, from.length(MAX_FRAME)).await.map_err(|_| Ending::Idle)??;
            if length <= SMALL_REQUEST {
                let frame = tokio::time::timeout(SMALL_PATIENCE, from.body(length)).await;
                return Ok((frame.map_err(|_| Ending::Slow("the rest of a request did not come"))??, None));
            }
            let mut held = memory.hold();
            let mut frame = Partial::new(length);
            let mut pace = Pace::new(Instant::now());
            let mut look = tokio::time::interval(LOOK);
            while !frame.is_whole() {
                if frame.needs() > 0 {
                    pace.pause(Instant::now());
                    held.grow(frame.needs()).await;
                    frame.grow();
                    pace.resume(Instant::now());
                }
                tokio::select! {
                    more = from.more(&mut frame) => {
                        more?;
                        pace.heard(Instant::now());
                    }
                    _ = look.tick() => {
                        if let Some(why) = pace.verdict(frame.received(), Instant::now(), memory.is_short()) {
                            return Err(Ending::Slow(why));
                        }
                    }
                }
            }
            Ok((frame.freeze(), Some(held)))
        };
        tokio::select! {
            () = self.stop.cancelled() => Err(Ending::Stopped),
            read = read => read,
        }
    }

    async fn reply(&mut self, reply: Reply) -> Result<(), Ending> {
        // The writer ends only where this function does too.
        self.replies.send(reply).await.map_err(|_| Ending::Stopped)
    }

    /// Lets the client say who it is. `again` is the mechanism that a session is to be renewed by.
    async fn introduce(&mut self, mut authentication: Authentication, again: Option<String>) -> Result<(), Ending> {
        let listener = Arc::clone(&self.caller.peer.listener);
        let Some(terms) = &listener.sasl else { return Ok(()) };
        let deadline = tokio::time::Instant::now() + INTRODUCTION;
        let mut first = again.map(|mechanism| authentication.handshake(&self.caller, terms, &mechanism));
        loop {
            let step = match first.take() {
                Some(step) => step,
                None => self.next_step(&mut authentication, terms, deadline).await?,
            };
            match step {
                Step::Answer(chunks) => self.reply(Reply::Ready(chunks, None)).await?,
                Step::Done(chunks, session) => {
                    self.caller.gate = self.caller.gate.of(session.principal().clone());
                    self.session = Some(session);
                    return self.reply(Reply::Ready(chunks, None)).await;
                }
                Step::Failed(chunks, why) => {
                    if let Some(chunks) = chunks {
                        self.reply(Reply::Ready(chunks, None)).await?;
                    }
                    return Err(Ending::Stranger(why));
                }
            }
        }
    }

    async fn next_step(
        &mut self,
        authentication: &mut Authentication,
        terms: &SaslTerms,
        deadline: tokio::time::Instant,
    ) -> Result<Step, Ending> {
        let frame = tokio::select! {
            () = self.stop.cancelled() => return Err(Ending::Stopped),
            frame = tokio::time::timeout_at(deadline, self.from.next(MAX_STRANGERS_FRAME)) => match frame {
                Ok(frame) => frame?,
                Err(_) => return Err(Ending::Stranger("it took too long".to_owned())),
            },
        };
        Ok(authentication.step(&mut self.caller, terms, frame).await)
    }

    async fn produce(
        &mut self,
        header: RequestHeader,
        request: ProduceRequest,
        began: Instant,
        length: usize,
        memory: Option<Held>,
    ) -> Result<(), Ending> {
        let wants_answer = request.acks != 0;
        self.caller.header = header;
        let header = self.caller.header.clone();
        let version = header.api_version;
        let limited = self.caller.gate.security().has_quotas();
        let (request, finish) = match authorize::check(&self.caller, request.into()) {
            Verdict::Served(request, finish) => (*request, finish),
            Verdict::Refused(response) if wants_answer => {
                self.caller.peer.broker.stats().served(ApiKey::Produce, began.elapsed());
                return self.reply(Reply::Ready(encode_response_chunks(&header, &response), None)).await;
            }
            Verdict::Refused(_) => return Err(Ending::Acks0("not authorized".to_owned())),
        };
        let Request::Produce(request) = request else { unreachable!("a request stays of its kind") };
        let denied = finish.is_some();
        let acknowledgement = api_produce::produce(&self.caller.peer.broker, request, version).await;
        let mut put_off = Duration::ZERO;
        if limited {
            let used = [(QuotaKey::ProducerByteRate, length as f64), quota::percentage(began.elapsed())];
            put_off = quota::charge(&self.caller, &used);
        }
        if wants_answer {
            let later = Later { header, acknowledgement, finish, put_off, began, _memory: memory };
            self.reply(Reply::Later(Box::new(later))).await?;
        } else {
            self.caller.peer.broker.stats().served(ApiKey::Produce, began.elapsed());
            let refused = acknowledgement.refused().or_else(|| denied.then(|| "not authorized".to_owned()));
            if let Some(why) = refused {
                return Err(Ending::Acks0(why));
            }
        }
        self.rest(put_off).await
    }

    async fn request(&mut self, header: RequestHeader, request: Request, began: Instant) -> Result<(), Ending> {
        let key = request.key();
        self.caller.header = header;
        let limited = self.caller.gate.security().has_quotas();
        let mutations = if limited { quota::mutations(&request) } else { 0.0 };
        let may_wait = matches!(key, ApiKey::Fetch | ApiKey::JoinGroup | ApiKey::SyncGroup);
        if key == ApiKey::Fetch && self.places.answers.is_short() {
            // No more is brought out until what was brought out has been read.
            drop(self.room_for_answer(SMALL_REQUEST + 1).await?);
        }
        let (mut response, busy) = {
            let serving = quota::Measured::new(Box::pin(dispatch::serve(&mut self.caller, request)));
            if may_wait {
                // These wait for others; whoever has gone, or must go, does not wait with them.
                tokio::select! {
                    response = serving => response,
                    () = self.from.gone() => return Err(FrameError::Closed.into()),
                    () = self.stop.cancelled() => return Err(Ending::Stopped),
                }
            } else {
                serving.await
            }
        };
        if let Some(why) = self.caller.hang_up.take() {
            return Err(Ending::Refused(why.to_owned()));
        }
        let mut put_off = Duration::ZERO;
        if limited {
            let bytes = quota::record_bytes(&response) as f64;
            let used = [(QuotaKey::ConsumerByteRate, bytes), (QuotaKey::ControllerMutationRate, mutations), quota::percentage(busy)];
            put_off = quota::charge(&self.caller, &used);
            quota::tell(&mut response, put_off);
        }
        self.caller.peer.broker.stats().served(key, began.elapsed());
        let held = self.room_for_answer(quota::record_bytes(&response)).await?;
        self.reply(Reply::Ready(encode_response_chunks(&self.caller.header, &response), held)).await?;
        self.rest(put_off).await
    }

    /// Waits until there is memory for an answer with so many bytes of records.
    async fn room_for_answer(&mut self, bytes: usize) -> Result<Option<Held>, Ending> {
        if bytes <= SMALL_REQUEST {
            return Ok(None);
        }
        let mut held = self.places.answers.hold();
        tokio::select! {
            biased;
            () = held.grow(bytes.min(MAX_FRAME)) => {}
            () = self.from.gone() => return Err(FrameError::Closed.into()),
            () = self.stop.cancelled() => return Err(Ending::Stopped),
        }
        Ok(Some(held))
    }

    /// Does not listen for a while.
    async fn rest(&mut self, put_off: Duration) -> Result<(), Ending> {
        if put_off.is_zero() {
            return Ok(());
        }
        tokio::select! {
            () = tokio::time::sleep(put_off) => Ok(()),
            () = self.from.gone() => Err(FrameError::Closed.into()),
            () = self.stop.cancelled() => Err(Ending::Stopped),
        }
    }
}

/// What a client calls itself may be anything: a log line takes the harmless part of it.
fn printable(text: &str) -> String {
    text.chars().filter(|c| c.is_ascii_graphic() || *c == ' ').take(64).collect()
}

/// Waits for the disk; the answer.
async fn acknowledged(later: Later, broker: &Broker) -> Vec<Bytes> {
    let Later { header, acknowledgement, finish, put_off, began, _memory } = later;
    let mut response = Response::from(acknowledgement.response().await);
    if let Some(finish) = finish {
        finish(&mut response);
    }
    quota::tell(&mut response, put_off);
    broker.stats().served(ApiKey::Produce, began.elapsed());
    encode_response_chunks(&header, &response)
}

async fn write_replies<W: AsyncWrite + Unpin>(
    write: W,
    mut queue: mpsc::Receiver<Reply>,
    broker: &Broker,
    answers: &Memory,
) -> io::Result<()> {
    let (mut write, written) = Counted::new(write);
    // What was taken out of the queue and is not written yet: a reply, or an acknowledgement that is waited for already.
    let (mut next, mut waiting) = (None, None);
    loop {
        let reply = match (waiting.take(), next.take()) {
            (Some(acknowledgement), _) => (acknowledgement.await, None),
            (None, next) => match if next.is_some() { next } else { queue.recv().await } {
                Some(Reply::Ready(chunks, held)) => (chunks, held),
                Some(Reply::Later(later)) => (Box::pin(acknowledged(*later, broker)).await, None),
                None => break,
            },
        };
        let (mut chunks, held) = reply;
        // What one sync has acknowledged goes out together.
        while held.is_none() && chunks.len() < TOGETHER && waiting.is_none() && next.is_none() {
            match queue.try_recv() {
                Ok(Reply::Later(later)) => {
                    let mut acknowledgement = Box::pin(acknowledged(*later, broker));
                    match futures::poll!(&mut acknowledgement) {
                        Poll::Ready(more) => chunks.extend(more),
                        Poll::Pending => waiting = Some(acknowledgement),
                    }
                }
                Ok(other) => next = Some(other),
                Err(_) => break,
            }
        }
        let before = written.load(Ordering::Relaxed);
        let writing = tokio::time::timeout(IDLE, async {
            write_chunks(&mut write, chunks).await?;
            // TLS keeps bytes back until it is told.
            write.flush().await
        });
        let done = if held.is_none() {
            writing.await
        } else {
            let pace = Pace::new(Instant::now());
            let mut look = tokio::time::interval(LOOK);
            tokio::pin!(writing);
            loop {
                tokio::select! {
                    biased;
                    done = &mut writing => break done,
                    _ = look.tick() => {
                        let moved = written.load(Ordering::Relaxed) - before;
                        if answers.is_short() && pace.is_in_the_way(moved, Instant::now()) {
                            return Err(io::Error::new(io::ErrorKind::TimedOut, "the client read too slowly, and others waited for memory"));
                        }
                    }
                }
            }
        };
        done.map_err(|_| io::Error::from(io::ErrorKind::TimedOut))??;
    }
    write.shutdown().await
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_silent_connection_costs_little() {
        let broker = crate::broker::TestDisk::default().broker().await;
        let address = std::net::SocketAddr::from(([127, 0, 0, 1], 1));
        let listener = Arc::new(super::super::ListenerTerms::plaintext());
        let peer = super::super::Peer { broker, remote: address, local: address, listener };
        let places = Places::new(super::super::Limits::default());
        let (read, write) = tokio::io::split(tokio::io::empty());
        let serving = serve(read, write, Caller::new(peer), places, CancellationToken::new());
        let bytes = size_of_val(&serving);
        assert!(bytes < 6 << 10, "{bytes} bytes");
    }

    #[test]
    fn a_client_cannot_write_into_the_log_what_it_likes() {
        assert_eq!(printable("kcat 1.7\n\u{1b}[31mERROR"), "kcat 1.7[31mERROR");
        assert_eq!(printable(&"x".repeat(1000)).len(), 64);
    }
}
