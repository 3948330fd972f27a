//! Tracks the Service or pod that a connection of the application was opened to, and whether it
//! still has the address.
//!
//! Applications keep connections for hours, and an address passes to another pod in
//! seconds. Without a mesh such a connection breaks with the pod at its other end. Here it
//! ends at the proxy, which must break it: a connection that was opened to a pod never
//! carries a request to another one, but for the one case below, and one whose target is gone is
//! closed.
//!
//! - Opened to a *Service*: a request goes where a new connection would go. When the Service
//!   has left the address, the connection is closed behind the next answer.
//! - Opened to a *pod*, which its uid names: a request goes to that pod or nowhere. When the
//!   pod has left the address, by a change notification or by the certificate of another one
//!   there, requests that were not sent end with the connection. A pod that is there and cannot be
//!   connected to is passed over once for a Service whose pods are interchangeable, before the
//!   first response: without a mesh the client would have taken the next address.
//!
//! - Opened to what is *outside* the mesh: each call is decided by `egress`, until the address is one
//!   of the mesh.
//!
//! A controller that has just started may know less than the one before it. So only a change
//! within one control stream is proof; what a new stream does not know is doubted for
//! [`CONFIRMED_WITHIN`] first. Meanwhile a pod with a proxy is still called, as its certificate
//! proves which one answers, and a pod without one is not.

use std::net::SocketAddr;
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::AtomicU64;
use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;

use policy::reason::Reason;
use tokio::time::{Instant, timeout_at};

use crate::config::snapshot::{Destination, PodTarget, Snapshot};
use crate::config::store::{DestinationGuard, Store};
use crate::failure::{Failure, Found};

/// A new control stream that does not know the target for this long is believed. A
/// controller accepts streams once it has listed every kind, and lags behind others by less
/// than a second.
const CONFIRMED_WITHIN: Duration = Duration::from_secs(10);

/// What a connection was opened to.
#[derive(Debug)]
pub(super) struct OpenedTo {
    pub(super) destination: Arc<Destination>,
    addr: SocketAddr,
    guard: DestinationGuard,
    /// The newest control stream that had it at the address.
    known_in: AtomicU64,
}

/// Whether the target of a connection is still at its address.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Standing {
    There,
    /// A new control stream knows something else at the address.
    Unconfirmed,
    Gone,
}

impl OpenedTo {
    pub(super) fn new(
        store: &Store,
        destination: Arc<Destination>,
        addr: SocketAddr,
        guard: DestinationGuard,
    ) -> Self {
        let opened = Self {
            destination,
            addr,
            guard,
            known_in: AtomicU64::new(0),
        };
        store.inspect(|now| opened.standing(now));
        opened
    }

    /// Whether the target is still at its address.
    pub(super) fn standing(&self, snapshot: &Snapshot) -> Standing {
        let current = snapshot.destinations.get(&self.addr);
        // What is not known at all proves nothing against it.
        if current.is_none_or(|current| is_same(&self.destination, current)) {
            if current.is_some() && self.known_in.load(Relaxed) != snapshot.stream {
                self.known_in.store(snapshot.stream, Relaxed);
            }
            return Standing::There;
        }
        if self.known_in.load(Relaxed) == snapshot.stream {
            Standing::Gone
        } else {
            Standing::Unconfirmed
        }
    }

    /// What a request is for: what is at the address now, or the pod that the connection was
    /// opened to.
    pub(super) fn target<'a>(
        &'a self,
        snapshot: &'a Snapshot,
        standing: Standing,
    ) -> &'a Destination {
        let current = snapshot.destinations.get(&self.addr);
        match current {
            Some(current) if standing == Standing::There || !self.is_pod() => current,
            _ => &self.destination,
        }
    }

    /// Whether the target is at its address for all that is known now.
    pub(super) fn is_there(&self, store: &Store) -> bool {
        store.inspect(|now| self.standing(now)) == Standing::There
    }

    /// The failure of a request that no endpoint got, where its pod may be gone. The certificate
    /// of another pod at its address is proof before the controller reports that.
    pub(super) fn unsent(&self, store: &Store, failure: Failure) -> Failure {
        match failure {
            Failure::NotSent { found, .. }
                if self.is_pod() && (found == Found::OtherPod || !self.is_there(store)) =>
            {
                gone()
            }
            failure => failure,
        }
    }

    pub(super) fn is_pod(&self) -> bool {
        matches!(*self.destination, Destination::Pod(_))
    }
}

/// Whether the pod of a connection may be called that has this standing.
pub(super) fn may_call(pod: &PodTarget, standing: Standing) -> Result<(), Failure> {
    match standing {
        Standing::There => Ok(()),
        Standing::Unconfirmed if pod.endpoint.meshed() => Ok(()),
        Standing::Unconfirmed | Standing::Gone => Err(gone()),
    }
}

/// Returns when the target has left its address.
pub(super) async fn until_gone(store: &Store, opened: &OpenedTo) {
    let mut believed_at = None;
    loop {
        let mut changed = pin!(opened.guard.changed());
        changed.as_mut().enable();
        match store.inspect(|now| opened.standing(now)) {
            Standing::There => {
                believed_at = None;
                changed.await;
            }
            Standing::Unconfirmed => {
                let until = *believed_at.get_or_insert_with(|| Instant::now() + CONFIRMED_WITHIN);
                // Boxed: hardly any connection waits here.
                if Box::pin(timeout_at(until, changed)).await.is_err() {
                    return;
                }
            }
            Standing::Gone => return,
        }
    }
}

/// The failure of a plaintext connection whose address has come to be one of the mesh: what
/// it was opened to is there no more, or was of the mesh before the controller knew that.
pub(super) async fn until_meshed(
    store: &Store,
    addr: SocketAddr,
    guard: &DestinationGuard,
) -> Failure {
    loop {
        let mut changed = pin!(guard.changed());
        changed.as_mut().enable();
        if store.registry.was_meshed(addr) {
            let detail = "the address is one of the mesh now, to which no plaintext is sent";
            return Failure::refused(Reason::UnknownDestination, detail);
        }
        changed.await;
    }
}

/// The same for a connection of bytes. One to a Service stays with the endpoint that it has,
/// as it does without a mesh.
pub(super) async fn until_pod_gone(store: &Store, opened: &OpenedTo) -> Failure {
    if matches!(*opened.destination, Destination::External { .. }) {
        return until_meshed(store, opened.addr, &opened.guard).await;
    }
    if !opened.is_pod() {
        std::future::pending::<()>().await;
    }
    until_gone(store, opened).await;
    gone()
}

fn gone() -> Failure {
    Failure::target_gone("the pod that this connection was opened to is gone")
}

/// Whether a connection that was opened to the one may go on as one to the other. Pods are
/// distinguished by their uid; an older controller sends none.
fn is_same(opened: &Destination, current: &Destination) -> bool {
    match (opened, current) {
        (Destination::External { .. }, Destination::External { .. }) => true,
        (Destination::Service(opened), Destination::Service(current)) => opened == current,
        (Destination::Pod(opened), Destination::Pod(current)) => {
            let (opened, current) = (&opened.endpoint.pod_uid, &current.endpoint.pod_uid);
            opened.is_empty() || current.is_empty() || opened == current
        }
        (Destination::Pod(opened), _) => opened.endpoint.pod_uid.is_empty(),
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use policy::access_log::AccessLog;
    use prometheus_client::registry::Registry;
    use tokio::time::timeout;
    use wire::v1;
    use wire::v1::destination::Target;

    use super::*;
    use crate::telemetry::Telemetry;
    use crate::telemetry::metrics::Metrics;

    const IDENTITY: &str = "spiffe://cluster.local/ns/shop/sa/db";
    /// More than it takes to be notified, and far less than [`CONFIRMED_WITHIN`].
    const SOON: Duration = Duration::from_secs(1);

    fn addr() -> SocketAddr {
        SocketAddr::from(([10, 0, 0, 1], 80))
    }

    fn store() -> Arc<Store> {
        let metrics = Metrics::register(&mut Registry::default());
        Arc::new(Store::new(Arc::new(Telemetry::new(
            metrics,
            AccessLog::OFF,
        ))))
    }

    fn pod(uid: &str, identity: &str) -> Target {
        Target::Pod(v1::PodTarget {
            endpoint: Some(v1::Endpoint {
                ip: addr().ip().to_string(),
                port: addr().port().into(),
                identity: identity.to_owned(),
                pod_uid: uid.to_owned(),
                ..v1::Endpoint::default()
            }),
            ..v1::PodTarget::default()
        })
    }

    fn batch(target: Target, full: bool) -> v1::Batch {
        let resource = v1::Resource {
            name: wire::names::destination(addr().ip(), addr().port()),
            version: String::new(),
            content: Some(v1::resource::Content::Destination(v1::Destination {
                target: Some(target),
            })),
        };
        v1::Batch {
            set: vec![wire::version::stamp(resource)],
            full,
            ..v1::Batch::default()
        }
    }

    fn say(store: &Store, target: Target, full: bool) {
        let nacks = store.apply(batch(target, full));
        assert!(nacks.is_empty(), "{nacks:?}");
    }

    async fn opened(store: &Arc<Store>) -> OpenedTo {
        let (destination, guard) = store.find(addr()).await.unwrap();
        OpenedTo::new(store, destination.unwrap(), addr(), guard)
    }

    async fn is_gone(store: &Store, opened: &OpenedTo) -> bool {
        timeout(SOON, until_gone(store, opened)).await.is_ok()
    }

    #[tokio::test(start_paused = true)]
    async fn change_within_a_stream_is_proof() {
        for (now, gone) in [
            (pod("b", IDENTITY), true),
            (pod("a", ""), false),
            (Target::External(v1::External::default()), true),
            (Target::Service("service/shop/db/80".into()), true),
            // Of an older controller.
            (pod("", IDENTITY), false),
        ] {
            let store = store();
            say(&store, pod("a", IDENTITY), true);
            let opened = opened(&store).await;
            assert!(!is_gone(&store, &opened).await);
            let (ended, ()) = tokio::join!(is_gone(&store, &opened), async {
                say(&store, now.clone(), false);
            });
            assert_eq!(ended, gone, "{now:?}");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn new_stream_is_unconfirmed_at_first() {
        let store = store();
        say(&store, pod("a", IDENTITY), true);
        let opened = opened(&store).await;
        let outside = || Target::External(v1::External::default());
        say(&store, outside(), true);
        let standing = || store.inspect(|now| opened.standing(now));
        assert_eq!(standing(), Standing::Unconfirmed);
        assert!(!is_gone(&store, &opened).await);
        // It has learned of the pod, and from then on its word counts.
        say(&store, pod("a", IDENTITY), false);
        assert_eq!(standing(), Standing::There);
        say(&store, outside(), false);
        assert!(is_gone(&store, &opened).await);

        let store = self::store();
        say(&store, pod("a", IDENTITY), true);
        let opened = self::opened(&store).await;
        say(&store, outside(), true);
        let gone = timeout(CONFIRMED_WITHIN * 2, until_gone(&store, &opened)).await;
        assert!(gone.is_ok(), "it does not learn of the pod");
    }

    #[tokio::test(start_paused = true)]
    async fn refused_or_missing_destination_ends_nothing() {
        let store = store();
        say(&store, pod("a", IDENTITY), true);
        let opened = opened(&store).await;
        let nacks = store.apply(batch(pod("b", "no identity"), false));
        assert_eq!(nacks.len(), 1);
        assert!(!is_gone(&store, &opened).await);
        store.apply(v1::Batch {
            full: true,
            ..v1::Batch::default()
        });
        assert!(!is_gone(&store, &opened).await);
    }

    #[tokio::test(start_paused = true)]
    async fn unconfirmed_pod_is_called_only_with_a_certificate() {
        for (identity, may) in [(IDENTITY, true), ("", false)] {
            let store = store();
            say(&store, pod("a", identity), true);
            let opened = opened(&store).await;
            say(&store, pod("b", identity), true);
            let (target, called) = store.inspect(|now| {
                let standing = opened.standing(now);
                match opened.target(now, standing) {
                    Destination::Pod(pod) => {
                        (pod.endpoint.pod_uid.to_string(), may_call(pod, standing))
                    }
                    other => panic!("{other:?}"),
                }
            });
            assert_eq!((&*target, called.is_ok()), ("a", may), "{identity:?}");
        }
    }
}
