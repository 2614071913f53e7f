//! The Kafka door: listeners, connections, and one file for each group of APIs.
//!
//! Always: responses leave a connection in the order of its requests; one connection cannot take more memory
//! than its requests' bytes, nor keep another from being served; where a listener asks who a client is, nothing is served
//! before it has said so. What an API does is the broker's; here are
//! only the sockets and the mapping between `wire` messages and the broker's own types. [`Server`] is
//! started and stopped by `node`.

mod api_alter_configs;
mod api_cluster;
mod api_configs;
mod api_consumer_groups;
mod api_fetch;
mod api_groups;
mod api_log_dirs;
mod api_members;
mod api_offsets;
mod api_partitions;
mod api_places;
mod api_produce;
mod api_producers;
mod api_quorum;
mod api_quotas;
mod api_replicas;
mod api_security;
mod api_topics;
mod api_txn;
mod audit;
mod authorize;
mod connection;
mod dispatch;
mod frame;
mod listener;
mod memory;
mod quota;
mod sasl;
mod subject;
#[cfg(test)]
mod tests;
#[cfg(test)]
mod tests_security;
mod tls;

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

pub use listener::{Limits, ListenerTerms, Protocol, listen};
pub use sasl::{Mechanism, SaslTerms};
pub use tls::{ClientCertificates, Tls, TlsFiles};

use listener::{Door, Places};

use crate::broker::Broker;

/// The Kafka listeners and their connections.
pub struct Server {
    addresses: Vec<SocketAddr>,
    #[cfg(test)]
    listeners: Vec<Arc<ListenerTerms>>,
    tasks: TaskTracker,
}

/// One client at the door: who it is, and who we are to it.
#[derive(Clone)]
struct Peer {
    broker: Arc<Broker>,
    /// Where the client connects from.
    remote: SocketAddr,
    /// The address it dialled, which is the one we tell it to dial, unless the listener says another.
    local: SocketAddr,
    /// The listener it has come to.
    listener: Arc<ListenerTerms>,
}

impl Peer {
    /// The host we tell the client.
    fn host(&self) -> String {
        match (&self.listener.advertised, self.local.ip()) {
            (Some((host, _)), _) => host.clone(),
            (None, IpAddr::V6(v6)) => v6.to_ipv4_mapped().map_or_else(|| v6.to_string(), |v4| v4.to_string()),
            (None, IpAddr::V4(v4)) => v4.to_string(),
        }
    }

    /// The port we tell the client.
    fn port(&self) -> i32 {
        i32::from(self.listener.advertised.as_ref().map_or_else(|| self.local.port(), |(_, port)| *port))
    }
}

impl Server {
    /// Serves what comes in at one listener, at which nothing is asked, until `stop`. Connections beyond
    /// `max_connections` are turned away.
    #[must_use]
    #[allow(clippy::needless_pass_by_value, reason = "whoever starts a server gives it what is its own")]
    pub fn start(listener: TcpListener, broker: Arc<Broker>, stop: CancellationToken, max_connections: usize) -> Self {
        let limits = Limits { connections: max_connections, ..Limits::default() };
        Self::open(vec![(listener, ListenerTerms::plaintext())], &broker, &stop, limits)
    }

    /// Serves what comes in at listeners until `stop`.
    #[must_use]
    pub fn open(listeners: Vec<(TcpListener, ListenerTerms)>, broker: &Arc<Broker>, stop: &CancellationToken, limits: Limits) -> Self {
        let tasks = TaskTracker::new();
        let places = Places::new(limits);
        let mut addresses = Vec::with_capacity(listeners.len());
        #[cfg(test)]
        let mut all = Vec::new();
        for (listener, terms) in listeners {
            addresses.push(listener.local_addr().unwrap_or_else(|_| SocketAddr::from(([0, 0, 0, 0], 0))));
            let terms = Arc::new(terms);
            #[cfg(test)]
            all.push(Arc::clone(&terms));
            let door = Door { terms, broker: Arc::clone(broker), places: Arc::clone(&places), stop: stop.clone() };
            tasks.spawn(listener::accept(listener, door, tasks.clone()));
        }
        Self {
            addresses,
            #[cfg(test)]
            listeners: all,
            tasks,
        }
    }

    /// Where its first listener is.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        self.addresses[0]
    }

    /// Where its listeners are.
    #[must_use]
    pub fn addresses(&self) -> &[SocketAddr] {
        &self.addresses
    }

    /// Completes when, after the stop, every connection is closed.
    pub async fn stopped(&self) {
        self.tasks.close();
        self.tasks.wait().await;
    }
}
