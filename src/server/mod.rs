//! The Kafka door: listeners, connections, and one file for each group of APIs.
//!
//! Always: responses leave a connection in the order of its requests; one connection cannot take more memory
//! than its requests' bytes, nor keep another from being served. What an API does is the broker's; here are
//! only the sockets and the mapping between `wire` messages and the broker's own types. [`Server`] is
//! started and stopped by `node`.

mod api_cluster;
mod api_configs;
mod api_fetch;
mod api_groups;
mod api_members;
mod api_offsets;
mod api_places;
mod api_produce;
mod api_topics;
mod connection;
mod dispatch;
mod frame;
#[cfg(test)]
mod tests;

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::broker::Broker;

/// How long to wait before accepting again where the system has no more file descriptors.
const OUT_OF_DESCRIPTORS: Duration = Duration::from_millis(100);

/// A Kafka listener and its connections.
pub struct Server {
    address: SocketAddr,
    tasks: TaskTracker,
}

/// One client at the door: who it is, and who we are to it.
#[derive(Clone)]
struct Peer {
    broker: Arc<Broker>,
    /// Where the client connects from.
    remote: SocketAddr,
    /// The address it dialled, which is the one we tell it to dial.
    local: SocketAddr,
}

impl Peer {
    /// The host we tell the client.
    fn host(&self) -> String {
        match self.local.ip() {
            IpAddr::V6(v6) => v6.to_ipv4_mapped().map_or_else(|| v6.to_string(), |v4| v4.to_string()),
            IpAddr::V4(v4) => v4.to_string(),
        }
    }

    /// The port we tell the client.
    fn port(&self) -> i32 {
        i32::from(self.local.port())
    }
}

impl Server {
    /// Serves what comes in at `listener` until `stop`. Connections beyond `max_connections` are turned away.
    #[must_use]
    pub fn start(listener: TcpListener, broker: Arc<Broker>, stop: CancellationToken, max_connections: usize) -> Self {
        let address = listener.local_addr().unwrap_or_else(|_| SocketAddr::from(([0, 0, 0, 0], 0)));
        let tasks = TaskTracker::new();
        tasks.spawn(accept(listener, broker, stop, max_connections, tasks.clone()));
        Self { address, tasks }
    }

    /// Where it listens.
    #[must_use]
    pub const fn address(&self) -> SocketAddr {
        self.address
    }

    /// Completes when, after the stop, every connection is closed.
    pub async fn stopped(&self) {
        self.tasks.close();
        self.tasks.wait().await;
    }
}

async fn accept(listener: TcpListener, broker: Arc<Broker>, stop: CancellationToken, max_connections: usize, tasks: TaskTracker) {
    let places = Arc::new(Semaphore::new(max_connections.min(Semaphore::MAX_PERMITS)));
    loop {
        let accepted = tokio::select! {
            () = stop.cancelled() => return,
            accepted = listener.accept() => accepted,
        };
        let (stream, remote) = match accepted {
            Ok(accepted) => accepted,
            Err(error) => {
                tracing::warn!(%error, "could not accept a connection");
                tokio::time::sleep(OUT_OF_DESCRIPTORS).await;
                continue;
            }
        };
        let Ok(place) = Arc::clone(&places).try_acquire_owned() else {
            broker.stats().turned_away();
            tracing::warn!(%remote, max_connections, "connection turned away: there are too many (kafka.max_connections)");
            continue;
        };
        tasks.spawn(welcome(stream, remote, Arc::clone(&broker), stop.clone(), place));
    }
}

async fn welcome(stream: TcpStream, remote: SocketAddr, broker: Arc<Broker>, stop: CancellationToken, place: OwnedSemaphorePermit) {
    // Small answers should not wait for more.
    let ready = stream.set_nodelay(true).and_then(|()| stream.local_addr());
    let local = match ready {
        Ok(local) => local,
        Err(error) => {
            tracing::debug!(%remote, %error, "connection lost at once");
            return;
        }
    };
    broker.stats().connected();
    let peer = Peer { broker: Arc::clone(&broker), remote, local };
    connection::serve(stream, peer, stop).await;
    broker.stats().disconnected();
    drop(place);
}
