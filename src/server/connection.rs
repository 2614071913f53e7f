//! One connection: requests in, responses out, in the same order.
//!
//! Requests are served one after another, as Kafka does, but for Produce: its batches get their place in the log
//! in the order of the requests, and the wait for the disk happens in the queue of responses, so that many
//! requests of one connection ride on one sync. Always: at most [`PIPELINE`] responses wait; a request
//! that cannot be read or is not served closes the connection, except an ApiVersions of an unknown version,
//! whose client is told which there are. Called by `Server`.

use std::io;
use std::time::{Duration, Instant};

use bytes::Bytes;
use tokio::io::AsyncWriteExt;
use tokio::net::TcpStream;
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use super::Peer;
use super::api_produce::{self, Acknowledgement};
use super::dispatch::{self, Caller};
use super::frame::{FrameError, FrameReader, write_chunks};
use crate::broker::Broker;
use crate::wire::{ApiKey, FailureReason, Request, RequestHeader, decode_request, encode_response_chunks, unsupported_api_versions};

/// Responses that may wait on one connection.
const PIPELINE: usize = 512;
/// A connection that is silent for so long is closed (Kafka's `connections.max.idle.ms`).
const IDLE: Duration = Duration::from_secs(600);
/// How long responses may still be written after the stop.
const FAREWELL: Duration = Duration::from_secs(5);

/// What the writer does next.
enum Reply {
    /// Write these bytes.
    Ready(Vec<Bytes>),
    /// Wait for the disk, then write.
    Later { header: RequestHeader, acknowledgement: Acknowledgement, began: Instant },
}

/// Serves one connection until it ends.
pub(super) async fn serve(stream: TcpStream, peer: Peer, stop: CancellationToken) {
    let (read, write) = stream.into_split();
    let (replies, queue) = mpsc::channel(PIPELINE);
    let remote = peer.remote;
    let broker = std::sync::Arc::clone(&peer.broker);
    let mut writer = std::pin::pin!(write_replies(write, queue, &broker));
    let mut requests = std::pin::pin!(read_requests(read, peer, replies, stop));
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
        Ending::Frame(FrameError::Length(_)) | Ending::Refused(_) => tracing::warn!(%remote, %why, "connection closed"),
        Ending::Acks0(_) => tracing::info!(%remote, %why, "connection closed"),
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
    #[error(transparent)]
    Frame(#[from] FrameError),
    #[error("{0}")]
    Refused(String),
    #[error("a produce request without acknowledgement failed: {0}")]
    Acks0(String),
}

async fn read_requests(read: OwnedReadHalf, peer: Peer, replies: mpsc::Sender<Reply>, stop: CancellationToken) -> Ending {
    let mut reader = FrameReader::new(read);
    let mut caller = Caller::new(peer);
    loop {
        let frame = tokio::select! {
            () = stop.cancelled() => return Ending::Stopped,
            frame = tokio::time::timeout(IDLE, reader.next()) => match frame {
                Ok(Ok(frame)) => frame,
                Ok(Err(error)) => return error.into(),
                Err(_) => return Ending::Idle,
            },
        };
        let began = Instant::now();
        let reply = match decode_request(frame) {
            Ok((header, Request::Produce(request))) => {
                let wants_answer = request.acks != 0;
                let acknowledgement = api_produce::produce(&caller.peer.broker, request, header.api_version).await;
                if wants_answer {
                    Reply::Later { header, acknowledgement, began }
                } else {
                    caller.peer.broker.stats().served(ApiKey::Produce, began.elapsed());
                    match acknowledgement.refused() {
                        Some(why) => return Ending::Acks0(why),
                        None => continue,
                    }
                }
            }
            Ok((header, request)) => {
                let key = request.key();
                caller.header = header;
                let may_wait = matches!(key, ApiKey::Fetch | ApiKey::JoinGroup | ApiKey::SyncGroup);
                let response = {
                    let mut serving = std::pin::pin!(dispatch::serve(&mut caller, request));
                    if may_wait {
                        // These wait for others; whoever has gone, or must go, does not wait with them.
                        tokio::select! {
                            response = &mut serving => response,
                            () = reader.gone() => return FrameError::Closed.into(),
                            () = stop.cancelled() => return Ending::Stopped,
                        }
                    } else {
                        serving.await
                    }
                };
                caller.peer.broker.stats().served(key, began.elapsed());
                Reply::Ready(encode_response_chunks(&caller.header, &response))
            }
            Err(failure) => match (failure.header, failure.reason) {
                (Some(header), FailureReason::UnsupportedVersion { key, version }) if key == ApiKey::ApiVersions.code() => {
                    tracing::debug!(version, client = header.client_id.as_deref(), "told a client which versions of ApiVersions there are");
                    Reply::Ready(vec![unsupported_api_versions(&header)])
                }
                (header, reason) => {
                    let client = header.and_then(|h| h.client_id).unwrap_or_default();
                    return Ending::Refused(format!("{reason} (client id \"{}\", software {})", printable(&client), caller.software()));
                }
            },
        };
        // The writer ends only where this function does too.
        if replies.send(reply).await.is_err() {
            return Ending::Stopped;
        }
    }
}

/// What a client calls itself may be anything: a log line takes the harmless part of it.
fn printable(text: &str) -> String {
    text.chars().filter(|c| c.is_ascii_graphic() || *c == ' ').take(64).collect()
}

async fn write_replies(mut write: OwnedWriteHalf, mut queue: mpsc::Receiver<Reply>, broker: &Broker) -> io::Result<()> {
    while let Some(reply) = queue.recv().await {
        let chunks = match reply {
            Reply::Ready(chunks) => chunks,
            Reply::Later { header, acknowledgement, began } => {
                let response = acknowledgement.response().await;
                broker.stats().served(ApiKey::Produce, began.elapsed());
                encode_response_chunks(&header, &response.into())
            }
        };
        let written = tokio::time::timeout(IDLE, write_chunks(&mut write, chunks)).await;
        written.map_err(|_| io::Error::from(io::ErrorKind::TimedOut))??;
    }
    write.shutdown().await
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_client_cannot_write_into_the_log_what_it_likes() {
        assert_eq!(printable("kcat 1.7\n\u{1b}[31mERROR"), "kcat 1.7[31mERROR");
        assert_eq!(printable(&"x".repeat(1000)).len(), 64);
    }
}
