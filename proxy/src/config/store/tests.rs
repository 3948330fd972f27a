//! Subscriptions of the proxy, and what makes room for new ones.
//!
//! Claims: attack-12

use policy::access_log::AccessLog;
use prometheus_client::registry::Registry;
use wire::v1::destination::Target;

use super::*;
use crate::telemetry::metrics::Metrics;

fn at(number: usize) -> SocketAddr {
    let number = u32::try_from(number).unwrap();
    SocketAddr::from((std::net::Ipv4Addr::from(0x0a00_0000 + number), 80))
}

/// A destination of so many bytes at least.
fn destination(number: usize, bytes: usize) -> v1::Resource {
    let addr = at(number);
    let reason = "r".repeat(bytes);
    wire::version::stamp(v1::Resource {
        name: wire::names::destination(addr.ip(), addr.port()),
        version: String::new(),
        content: Some(v1::resource::Content::Destination(v1::Destination {
            target: Some(Target::Refused(v1::Refused {
                reason,
                ..v1::Refused::default()
            })),
        })),
    })
}

async fn used(number: usize, bytes: usize) -> Arc<Store> {
    let store = Store::new(Arc::new(Telemetry::new(
        Metrics::register(&mut Registry::default()),
        AccessLog::OFF,
    )));
    let store = Arc::new(store);
    let set = (0..number).map(|at| destination(at, bytes)).collect();
    let nacks = store.apply(v1::Batch {
        set,
        ..v1::Batch::default()
    });
    assert!(nacks.is_empty(), "{nacks:?}");
    for number in 0..number {
        assert!(store.find(at(number)).await.unwrap().0.is_some());
        tokio::time::advance(Duration::from_millis(1)).await;
    }
    store
}

// Claims: A6
#[tokio::test(start_paused = true)]
async fn thousand_destinations_are_kept_whatever_they_take() {
    let store = used(KEPT_AT_LEAST, 2 * KEPT_BYTES / KEPT_AT_LEAST).await;
    assert_eq!(store.subscriptions().len(), KEPT_AT_LEAST);
}

// Claims: A6
#[tokio::test(start_paused = true)]
async fn store_over_byte_limit_evicts_least_recently_used() {
    const MANY: usize = 2 * KEPT_AT_LEAST;
    let store = used(MANY, KEPT_BYTES / (MANY - 500)).await;
    // The oldest is in use, the next one was just now.
    let (_, _in_use) = store.find(at(0)).await.unwrap();
    tokio::time::advance(Duration::from_secs(1)).await;
    drop(store.find(at(1)).await.unwrap());
    let subscriptions = store.subscriptions();
    let kept = subscriptions.len();
    assert!((1400..1510).contains(&kept), "{kept}");
    for (number, stays) in [(0, true), (1, true), (2, false), (400, false), (700, true)] {
        assert_eq!(subscriptions.contains(&at(number)), stays, "{number}");
    }
    // Control: small ones all fit.
    let store = used(MANY, 10).await;
    assert_eq!(store.subscriptions().len(), MANY);
}
// Claims: A6, attack-11
#[tokio::test(start_paused = true)]
async fn full_store_in_use_evicts_only_address_outside_mesh() {
    let store = used(DESTINATION_LIMIT, 1).await;
    let mut guards = Vec::new();
    for number in 0..DESTINATION_LIMIT {
        guards.push(store.find(at(number)).await.unwrap().1);
    }
    let beyond = at(DESTINATION_LIMIT);
    assert_eq!(store.find(beyond).await.err(), Some(TooManyInUse));
    assert_eq!(store.subscriptions().len(), DESTINATION_LIMIT);
    let mut outside = destination(7, 1);
    outside.content = Some(v1::resource::Content::Destination(v1::Destination {
        target: Some(Target::External(v1::External::default())),
    }));
    let set = vec![wire::version::stamp(outside)];
    let nacks = store.apply(v1::Batch {
        set,
        ..v1::Batch::default()
    });
    assert!(nacks.is_empty(), "{nacks:?}");
    let (_, _in_use) = store.find(beyond).await.unwrap();
    let subscribed = store.subscriptions();
    assert!(!subscribed.contains(&at(7)) && subscribed.contains(&beyond));
    assert_eq!(subscribed.len(), DESTINATION_LIMIT);
    // An unused one is dropped before it, and its users are its own.
    drop(guards.remove(0));
    let (_, _again) = store.find(at(7)).await.unwrap();
    assert!(!store.subscriptions().contains(&at(0)));
    drop(guards.remove(6));
    assert_eq!(store.subscriptions.lock()[&at(7)].users, 1);
}
