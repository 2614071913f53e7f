//! Connections of the HTTP door: so many and no more, with or without TLS, and none that holds its place for nothing.
//!
//! Always: a connection holds its place until it is closed, and costs no file before it has one; a head that does not come,
//! or an answer that is not read, closes it. Used by [`super::serve`].

use std::future::Future;
use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use axum::{Extension, Router};
use hyper::server::conn::http1;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::{Sleep, sleep, timeout};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::server::Tls;

/// How long TLS may take.
const INTRODUCTION: Duration = Duration::from_secs(10);
/// How long a request's head may take, and how long a connection may wait for the next one.
const HEAD: Duration = Duration::from_secs(30);
/// The longest head.
const HEAD_BYTES: usize = 64 << 10;
/// How long an answer may wait for its reader to take the next part of it.
const UNREAD: Duration = Duration::from_secs(120);
/// How long answers may still be written after the stop.
const FAREWELL: Duration = Duration::from_secs(5);
/// How long to wait before accepting again where the system has no more file descriptors.
const OUT_OF_DESCRIPTORS: Duration = Duration::from_millis(100);

/// Where a request comes from.
#[derive(Clone, Copy, Debug)]
pub struct Remote(pub SocketAddr);

/// Serves at most `most` connections at a time until the stop; whoever comes later waits in the system's queue.
pub async fn serve(listener: TcpListener, tls: Option<Arc<Tls>>, most: usize, router: Router, stop: CancellationToken) {
    let places = Arc::new(Semaphore::new(most.clamp(1, Semaphore::MAX_PERMITS)));
    let tasks = TaskTracker::new();
    while let Some((stream, remote, place)) = next(&listener, &places, &stop).await {
        tasks.spawn(connection(stream, tls.clone(), router.clone().layer(Extension(Remote(remote))), stop.clone(), place));
    }
    tasks.close();
    if timeout(FAREWELL, tasks.wait()).await.is_err() {
        tracing::debug!("HTTP connections closed before everything was written");
    }
}

/// The next connection and its place; nothing after the stop.
async fn next(
    listener: &TcpListener,
    places: &Arc<Semaphore>,
    stop: &CancellationToken,
) -> Option<(TcpStream, SocketAddr, OwnedSemaphorePermit)> {
    let accepted = async {
        let place = Arc::clone(places).acquire_owned().await.expect("the places are never closed");
        loop {
            match listener.accept().await {
                Ok((stream, remote)) => return (stream, remote, place),
                Err(error) => {
                    tracing::warn!(%error, "could not accept an HTTP connection");
                    sleep(OUT_OF_DESCRIPTORS).await;
                }
            }
        }
    };
    tokio::select! {
        accepted = accepted => Some(accepted),
        () = stop.cancelled() => None,
    }
}

async fn connection(stream: TcpStream, tls: Option<Arc<Tls>>, router: Router, stop: CancellationToken, _place: OwnedSemaphorePermit) {
    if stream.set_nodelay(true).is_err() {
        return;
    }
    let stream = Watched::new(stream, UNREAD);
    let Some(tls) = tls else { return speak(stream, router, stop).await };
    let met = tokio::select! {
        met = timeout(INTRODUCTION, tls.accept(stream)) => met,
        () = stop.cancelled() => return,
    };
    match met {
        Ok(Ok(stream)) => speak(stream, router, stop).await,
        Ok(Err(error)) => tracing::debug!(%error, "no TLS with an HTTP client"),
        Err(_) => tracing::debug!("no TLS with an HTTP client: it took too long"),
    }
}

async fn speak<S: AsyncRead + AsyncWrite + Unpin + Send + 'static>(stream: S, router: Router, stop: CancellationToken) {
    let mut builder = http1::Builder::new();
    builder.timer(TokioTimer::new()).header_read_timeout(HEAD).max_buf_size(HEAD_BYTES);
    let connection = builder.serve_connection(TokioIo::new(stream), TowerToHyperService::new(router));
    tokio::pin!(connection);
    let done = tokio::select! {
        done = connection.as_mut() => done,
        () = stop.cancelled() => {
            connection.as_mut().graceful_shutdown();
            connection.await
        }
    };
    if let Err(error) = done {
        tracing::debug!(%error, "HTTP connection closed");
    }
}

/// A stream whose other side may not leave what is written unread for too long.
struct Watched<S> {
    stream: S,
    patience: Duration,
    /// Runs while a write waits.
    until: Option<Pin<Box<Sleep>>>,
}

impl<S> Watched<S> {
    const fn new(stream: S, patience: Duration) -> Self {
        Self { stream, patience, until: None }
    }

    /// What a write came to, or an error where it has waited too long.
    fn watch<T>(&mut self, polled: Poll<io::Result<T>>, context: &mut Context<'_>) -> Poll<io::Result<T>> {
        if polled.is_ready() {
            self.until = None;
            return polled;
        }
        let until = self.until.get_or_insert_with(|| Box::pin(sleep(self.patience)));
        match until.as_mut().poll(context) {
            Poll::Ready(()) => Poll::Ready(Err(io::Error::new(io::ErrorKind::TimedOut, "the answer is not read"))),
            Poll::Pending => Poll::Pending,
        }
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Watched<S> {
    fn poll_read(mut self: Pin<&mut Self>, context: &mut Context<'_>, into: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_read(context, into)
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Watched<S> {
    fn poll_write(mut self: Pin<&mut Self>, context: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let polled = Pin::new(&mut self.stream).poll_write(context, bytes);
        self.watch(polled, context)
    }

    fn poll_write_vectored(mut self: Pin<&mut Self>, context: &mut Context<'_>, parts: &[io::IoSlice<'_>]) -> Poll<io::Result<usize>> {
        let polled = Pin::new(&mut self.stream).poll_write_vectored(context, parts);
        self.watch(polled, context)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        let polled = Pin::new(&mut self.stream).poll_flush(context);
        self.watch(polled, context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        let polled = Pin::new(&mut self.stream).poll_shutdown(context);
        self.watch(polled, context)
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::AsyncWriteExt;

    use super::*;

    #[tokio::test]
    async fn the_next_one_waits_until_a_place_is_free() {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let address = listener.local_addr().expect("bound");
        let (places, stop) = (Arc::new(Semaphore::new(1)), CancellationToken::new());
        let _first = TcpStream::connect(address).await.expect("connected");
        let _second = TcpStream::connect(address).await.expect("in the system's queue");
        let (_, _, place) = next(&listener, &places, &stop).await.expect("not stopped");
        assert!(futures::poll!(std::pin::pin!(next(&listener, &places, &stop))).is_pending());
        drop(place);
        assert!(next(&listener, &places, &stop).await.is_some());
        stop.cancel();
        let _held = Arc::clone(&places).acquire_owned().await.expect("free again");
        assert!(next(&listener, &places, &stop).await.is_none());
    }

    #[tokio::test]
    async fn who_does_not_read_is_closed() {
        let (ours, _theirs) = tokio::io::duplex(16);
        let mut watched = Watched::new(ours, Duration::from_millis(1));
        let error = watched.write_all(&[0; 100]).await.expect_err("nobody reads");
        assert_eq!(error.kind(), io::ErrorKind::TimedOut);
    }
}
