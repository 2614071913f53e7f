//! A listener: what is spoken at it, who may connect, and how many.
//!
//! Always: a connection beyond a cap is closed before anything is read from it; one that has not said who it is in
//! [`INTRODUCTION`], where that is asked, is closed. Called by `Server`.

use std::collections::HashMap;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use tokio::net::{TcpListener, TcpSocket, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::dispatch::Caller;
use super::memory::Memory;
use super::sasl::SaslTerms;
use super::tls::Tls;
use super::{Peer, connection};
use crate::broker::Broker;
use crate::broker::security::{AuditEvent, Principal};

/// How long to wait before accepting again where the system has no more file descriptors.
const OUT_OF_DESCRIPTORS: Duration = Duration::from_millis(100);
/// Connections that may wait to be accepted; the system takes at most what it is set to (`net.core.somaxconn`).
const AT_ONCE: u32 = 4096;
/// How long TLS, and then SASL, may take.
pub(super) const INTRODUCTION: Duration = Duration::from_secs(30);

/// What is spoken at a listener.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Protocol {
    /// Nothing is asked.
    Plaintext,
    /// TLS.
    Ssl,
    /// SASL.
    SaslPlaintext,
    /// TLS, and SASL within.
    SaslSsl,
}

impl Protocol {
    /// Kafka's name for it.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Plaintext => "PLAINTEXT",
            Self::Ssl => "SSL",
            Self::SaslPlaintext => "SASL_PLAINTEXT",
            Self::SaslSsl => "SASL_SSL",
        }
    }

    /// Whether it has TLS.
    #[must_use]
    pub const fn has_tls(self) -> bool {
        matches!(self, Self::Ssl | Self::SaslSsl)
    }

    /// Whether it has SASL.
    #[must_use]
    pub const fn has_sasl(self) -> bool {
        matches!(self, Self::SaslPlaintext | Self::SaslSsl)
    }
}

impl std::str::FromStr for Protocol {
    type Err = ();

    fn from_str(text: &str) -> Result<Self, ()> {
        let all = [Self::Plaintext, Self::Ssl, Self::SaslPlaintext, Self::SaslSsl];
        all.into_iter().find(|one| one.name().eq_ignore_ascii_case(text)).ok_or(())
    }
}

/// What holds at a listener.
pub struct ListenerTerms {
    /// Its name, for operators.
    pub name: String,
    /// What clients are told to connect to, where it is not what they dialled.
    pub advertised: Option<(String, u16)>,
    /// With TLS.
    pub tls: Option<Tls>,
    /// With SASL.
    pub sasl: Option<SaslTerms>,
}

impl ListenerTerms {
    /// A listener at which nothing is asked.
    #[must_use]
    pub fn plaintext() -> Self {
        Self { name: Protocol::Plaintext.name().to_owned(), advertised: None, tls: None, sasl: None }
    }

    /// What is spoken at it.
    #[must_use]
    pub const fn protocol(&self) -> Protocol {
        match (self.tls.is_some(), self.sasl.is_some()) {
            (false, false) => Protocol::Plaintext,
            (true, false) => Protocol::Ssl,
            (false, true) => Protocol::SaslPlaintext,
            (true, true) => Protocol::SaslSsl,
        }
    }

    /// Whether it knows of everyone who they are.
    #[must_use]
    pub fn authenticates(&self) -> bool {
        self.sasl.is_some() || self.tls.as_ref().is_some_and(Tls::requires_clients)
    }
}

/// How much is taken.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// Connections over all listeners.
    pub connections: usize,
    /// Connections from one address.
    pub connections_per_address: usize,
    /// Bytes of requests that are being read or served, over all connections, and as many of answers that wait to be
    /// read: at least one frame.
    pub request_bytes: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Self { connections: 10_000, connections_per_address: usize::MAX, request_bytes: 512 << 20 }
    }
}

/// The places that all listeners share.
pub(super) struct Places {
    limits: Limits,
    connections: Arc<Semaphore>,
    by_address: Mutex<HashMap<IpAddr, usize>>,
    /// For requests.
    pub(super) memory: Arc<Memory>,
    /// For answers.
    pub(super) answers: Arc<Memory>,
}

/// One connection's place.
pub(super) struct Place {
    _connection: OwnedSemaphorePermit,
    address: IpAddr,
    of: Arc<Places>,
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut by_address = self.of.by_address.lock();
        if let Some(count) = by_address.get_mut(&self.address) {
            *count -= 1;
            if *count == 0 {
                by_address.remove(&self.address);
            }
        }
    }
}

impl Places {
    pub(super) fn new(limits: Limits) -> Arc<Self> {
        Arc::new(Self {
            connections: Arc::new(Semaphore::new(limits.connections.min(Semaphore::MAX_PERMITS))),
            by_address: Mutex::default(),
            memory: Memory::new(limits.request_bytes),
            answers: Memory::new(limits.request_bytes),
            limits,
        })
    }

    /// A place for a connection, or which cap there is none for.
    fn take(self: &Arc<Self>, address: IpAddr) -> Result<Place, &'static str> {
        let connection = Arc::clone(&self.connections).try_acquire_owned().map_err(|_| "kafka.max_connections")?;
        let mut by_address = self.by_address.lock();
        let count = by_address.entry(address).or_default();
        if *count >= self.limits.connections_per_address {
            return Err("kafka.max_connections_per_ip");
        }
        *count += 1;
        Ok(Place { _connection: connection, address, of: Arc::clone(self) })
    }
}

/// Takes an address. With room for a crowd that comes at once, as after a restart: whoever finds none tries again a second later.
pub fn listen(address: SocketAddr) -> std::io::Result<TcpListener> {
    let socket = if address.is_ipv4() { TcpSocket::new_v4() } else { TcpSocket::new_v6() }?;
    // As the port of a node that has just stopped is taken again.
    socket.set_reuseaddr(true)?;
    socket.bind(address)?;
    socket.listen(AT_ONCE)
}

/// What a listener works with.
#[derive(Clone)]
pub(super) struct Door {
    pub(super) terms: Arc<ListenerTerms>,
    pub(super) broker: Arc<Broker>,
    pub(super) places: Arc<Places>,
    pub(super) stop: CancellationToken,
}

/// Accepts connections until the stop.
pub(super) async fn accept(listener: TcpListener, door: Door, tasks: TaskTracker) {
    loop {
        let accepted = tokio::select! {
            () = door.stop.cancelled() => return,
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
        match door.places.take(remote.ip()) {
            Ok(place) => drop(tasks.spawn(welcome(stream, remote, door.clone(), place))),
            Err(setting) => {
                door.broker.stats().turned_away();
                tracing::warn!(%remote, setting, "connection turned away: there are too many");
            }
        }
    }
}

async fn welcome(stream: TcpStream, remote: SocketAddr, door: Door, place: Place) {
    // Small answers should not wait for more.
    let ready = stream.set_nodelay(true).and_then(|()| stream.local_addr());
    let local = match ready {
        Ok(local) => local,
        Err(error) => {
            tracing::debug!(%remote, %error, "connection lost at once");
            return;
        }
    };
    let broker = Arc::clone(&door.broker);
    let security = broker.security();
    if security.has_quotas() {
        let wait = security.connected(&remote.ip().to_canonical().to_string(), Instant::now());
        tokio::select! {
            () = tokio::time::sleep(wait) => {}
            () = door.stop.cancelled() => return,
        }
    }
    broker.stats().connected();
    let peer = Peer { broker: Arc::clone(&broker), remote, local, listener: Arc::clone(&door.terms) };
    meet(stream, peer, door).await;
    broker.stats().disconnected();
    drop(place);
}

/// TLS, where there is TLS; then what Kafka speaks.
async fn meet(stream: TcpStream, peer: Peer, door: Door) {
    let Some(tls) = &door.terms.tls else {
        let (read, write) = stream.into_split();
        return connection::serve(read, write, Caller::new(peer), door.places, door.stop).await;
    };
    let remote = peer.remote;
    let met = tokio::select! {
        met = tokio::time::timeout(INTRODUCTION, tls.accept(stream)) => met,
        () = door.stop.cancelled() => return,
    };
    let why = match met {
        Ok(Ok(stream)) => match tls.principal(&stream) {
            Ok(principal) => {
                let mut caller = Caller::new(peer);
                // With SASL within, the certificate opens the door and SASL says who comes in.
                if let Some(principal) = principal.filter(|_| door.terms.sasl.is_none()) {
                    note(&caller, "success", &principal, "SSL", None);
                    caller.gate = caller.gate.of(principal);
                }
                let (read, write) = tokio::io::split(stream);
                return connection::serve(read, write, caller, door.places.clone(), door.stop.clone()).await;
            }
            Err(why) => why.to_owned(),
        },
        Ok(Err(error)) => error.to_string(),
        Err(_) => "it took too long".to_owned(),
    };
    tracing::info!(%remote, why, "no TLS with this client");
    note(&Caller::new(peer), "failure", &Principal::anonymous(), "SSL", Some(why));
}

/// Notes in the audit trail who came in, or did not.
pub(super) fn note(caller: &Caller, outcome: &'static str, principal: &Principal, how: &str, why: Option<String>) {
    let mut what = vec![("mechanism", how.to_owned()), ("listener", caller.peer.listener.name.clone())];
    what.extend(why.map(|why| ("reason", why)));
    let event = caller.gate.of(principal.clone()).event("authentication", outcome, what);
    let event = AuditEvent { principal: event.principal.chars().take(256).collect(), ..event };
    caller.gate.security().note(event);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn one_address_does_not_take_all_places() {
        let places = Places::new(Limits { connections: 3, connections_per_address: 2, ..Limits::default() });
        let [one, other] = ["10.0.0.1", "10.0.0.2"].map(|ip| ip.parse::<IpAddr>().unwrap());
        let held = [places.take(one).unwrap(), places.take(one).unwrap()];
        assert_eq!(places.take(one).err(), Some("kafka.max_connections_per_ip"));
        let third = places.take(other).unwrap();
        assert_eq!(places.take(other).err(), Some("kafka.max_connections"));
        drop(held);
        drop(third);
        assert!(places.by_address.lock().is_empty());
        assert!(places.take(one).is_ok());
    }

    #[test]
    fn a_protocol_goes_by_kafkas_name() {
        for (text, tls, sasl) in
            [("PLAINTEXT", false, false), ("ssl", true, false), ("SASL_PLAINTEXT", false, true), ("SASL_SSL", true, true)]
        {
            let protocol: Protocol = text.parse().unwrap();
            assert_eq!((protocol.has_tls(), protocol.has_sasl()), (tls, sasl));
        }
        assert!("TLS".parse::<Protocol>().is_err());
    }
}
