//! Which objects are in use by which proxies.
//!
//! Claims: attack-90, observe-151

use policy::name::Kind;
use serde_json::json;

use super::*;
use crate::observe::acknowledgements::MAX_RETAINED;
use crate::testing::cluster;
use crate::testing::cluster::Cluster;

const A: IpAddr = IpAddr::V4(std::net::Ipv4Addr::new(10, 0, 0, 1));
const B: IpAddr = IpAddr::V4(std::net::Ipv4Addr::new(10, 0, 0, 2));

fn split() -> ObjectRef {
    ObjectRef {
        kind: Kind::TrafficSplit,
        namespace: "shop".into(),
        name: "web".into(),
    }
}

fn state(pod: &str, needed: i64, acknowledged: bool) -> v1::ProxyState {
    v1::ProxyState {
        namespace: "shop".to_owned(),
        pod: pod.to_owned(),
        objects: vec![v1::ObjectState {
            object: Some(v1::ObjectRef::from(&split())),
            needed,
            acknowledged,
            ..v1::ObjectState::default()
        }],
        destinations: vec!["destination/10.1.0.1:80".to_owned()],
        service_account: "client".to_owned(),
        ..v1::ProxyState::default()
    }
}

/// Of a cluster without anything.
fn nothing() -> Model {
    Cluster::default().compile().0
}

fn tally(observed: &Observed, generation: i64) -> Tally {
    observed.tally(&nothing(), &split(), generation)
}

#[test]
fn older_generation_does_not_count_as_current() {
    let observed = Observed::default();
    observed.note(1, state("a", 4, true));
    observed.note(2, state("b", 5, true));
    let tally = tally(&observed, 5);
    assert_eq!((tally.acknowledged, tally.needed), (1, 2));
}

#[tokio::test(start_paused = true)]
async fn proxy_lag_runs_from_first_missing_object_until_acknowledged() {
    let observed = Observed::default();
    let pod = PodId::new("shop", "a");
    let behind = || observed.behind(&pod).map(|time| time.as_secs());
    let pass = |seconds| tokio::time::advance(Duration::from_secs(seconds));
    observed.note(1, state("a", 4, true));
    assert_eq!(behind(), None);
    observed.note(1, state("a", 5, false));
    pass(40).await;
    assert_eq!(behind(), Some(40));
    // With a newer generation it lacks the object as it did before.
    observed.note(1, state("a", 6, false));
    pass(30).await;
    assert_eq!(behind(), Some(70));
    observed.note(1, state("a", 6, true));
    assert_eq!(behind(), None);
    observed.note(1, state("a", 7, false));
    pass(5).await;
    assert_eq!(behind(), Some(5));
    // Without a stream nothing is on its way, and with the next one anew.
    observed.ended(1, "shop/a");
    assert_eq!(behind(), None);
    observed.note(2, state("a", 7, false));
    assert_eq!(behind(), Some(0));
}

#[test]
fn proxies_of_peers_count_like_our_own() {
    let observed = Observed::default();
    observed.note(1, state("a", 5, true));
    let theirs = v1::Observed {
        full: true,
        proxies: vec![state("b", 5, true)],
        gone: Vec::new(),
        authority: None,
    };
    observed.receive(A, theirs);
    assert_eq!(tally(&observed, 5).acknowledged, 2);
    observed.lost(A);
    assert_eq!(tally(&observed, 5).needed, 1);
}

#[test]
fn own_stream_beats_peers_and_latest_peer_wins() {
    let observed = Observed::default();
    let say = |peer, acknowledged| {
        let proxies = vec![state("a", 5, acknowledged)];
        observed.receive(
            peer,
            v1::Observed {
                full: false,
                proxies,
                gone: Vec::new(),
                authority: None,
            },
        );
    };
    say(A, false);
    say(B, true);
    assert_eq!(
        tally(&observed, 5),
        Tally {
            needed: 1,
            acknowledged: 1,
            ..Tally::default()
        }
    );
    observed.note(1, state("a", 5, false));
    assert_eq!(tally(&observed, 5).acknowledged, 0);
    observed.ended(1, "shop/a");
    assert_eq!(tally(&observed, 5).acknowledged, 1);
}

#[test]
fn closing_older_stream_does_not_hide_newer_one() {
    let observed = Observed::default();
    observed.note(1, state("a", 5, false));
    observed.note(2, state("a", 5, true));
    observed.ended(1, "shop/a");
    assert_eq!(tally(&observed, 5).acknowledged, 1);
}

#[test]
fn peer_gets_everything_first_and_then_only_differences() {
    let observed = Observed::default();
    observed.note(1, state("a", 5, true));
    observed.note(2, state("b", 5, true));
    let (at, first) = observed.own_since(0);
    assert!(first[0].full);
    assert_eq!(first[0].proxies.len(), 2);
    assert!(observed.own_since(at).1.is_empty());

    observed.note(2, state("b", 6, false));
    observed.ended(1, "shop/a");
    let (_, next) = observed.own_since(at);
    assert!(!next[0].full);
    assert_eq!(next[0].proxies.len(), 1);
    assert_eq!(next[0].gone, ["shop/a"]);
}

#[test]
fn peer_that_is_too_far_behind_gets_everything_anew() {
    let observed = Observed::default();
    observed.note(1, state("first", 5, true));
    let (at, _) = observed.own_since(0);
    for number in 0..=MAX_ENDED as u64 {
        let pod = format!("pod-{number}");
        observed.note(number + 2, state(&pod, 5, true));
        observed.ended(number + 2, &format!("shop/{pod}"));
    }
    let (_, messages) = observed.own_since(at);
    assert!(messages[0].full);
}

#[test]
fn chunked_full_state_has_only_first_message_full() {
    let observed = Observed::default();
    for number in 0..CHUNK as u64 + 1 {
        observed.note(number, state(&format!("pod-{number}"), 5, true));
    }
    let (_, messages) = observed.own_since(0);
    assert_eq!(
        messages
            .iter()
            .map(|message| message.full)
            .collect::<Vec<_>>(),
        [true, false]
    );
}

#[test]
fn workload_destinations_are_kept_up_to_bound() {
    let observed = Observed::default();
    observed.note(1, state("a", 5, true));
    assert_eq!(observed.retained("shop", "client").len(), 1);
    assert!(observed.retained("shop", "other").is_empty());
    let mut many = state("a", 5, true);
    many.destinations = (0..MAX_RETAINED + 50)
        .map(|port| format!("destination/10.1.0.1:{port}"))
        .collect();
    observed.note(1, many);
    assert_eq!(observed.retained("shop", "client").len(), MAX_RETAINED);
}

#[test]
fn unneeded_object_is_touched_and_has_no_proxies() {
    let observed = Observed::default();
    observed.note(1, state("a", 5, true));
    assert!(
        observed
            .take_touched(Consumer::Record)
            .unwrap()
            .contains(&split())
    );
    assert!(observed.take_touched(Consumer::Record).unwrap().is_empty());
    observed.ended(1, "shop/a");
    assert!(
        observed
            .take_touched(Consumer::Record)
            .unwrap()
            .contains(&split())
    );
    assert_eq!(tally(&observed, 5), Tally::default());
}

/// A cluster where `client` and `client-2` of account `web` may call Service `api`, which
/// is split, and where a TrafficTarget protects the pods of account `api`.
fn shop() -> Cluster {
    cluster::shop()
        .with(cluster::pod("client-2", "10.0.0.2", "web"))
        .with(cluster::split("web", "api", &[("api", 1)]))
        .with(cluster::group("g", json!([{"name": "all"}])))
        .with(cluster::target(
            "t",
            "api",
            &["web"],
            json!([{"kind": "HTTPRouteGroup", "name": "g"}]),
        ))
}

fn named(kind: Kind, name: &str) -> ObjectRef {
    ObjectRef::new(kind, "shop", name)
}

/// What the proxy of a pod says, in the way of a session.
fn proxy_state(
    pod: &str,
    account: &str,
    destinations: &[&str],
    has: &[(&ObjectRef, i64)],
) -> v1::ProxyState {
    let state = |(object, generation): &(&ObjectRef, i64)| v1::ObjectState {
        object: Some(v1::ObjectRef::from(*object)),
        needed: *generation,
        acknowledged: true,
        ..v1::ObjectState::default()
    };
    v1::ProxyState {
        namespace: "shop".to_owned(),
        pod: pod.to_owned(),
        uid: format!("uid-{pod}"),
        service_account: account.to_owned(),
        destinations: destinations.iter().map(|name| (*name).to_owned()).collect(),
        objects: has.iter().map(state).collect(),
        ..v1::ProxyState::default()
    }
}

const API: &str = "destination/10.96.0.1:80";

// Claims: C3
#[test]
fn protected_pod_needs_policy_before_its_proxy_reports() {
    let model = shop().compile().0;
    let observed = Observed::settled();
    let (target, group) = (
        named(Kind::TrafficTarget, "t"),
        named(Kind::HttpRouteGroup, "g"),
    );
    for object in [&target, &group] {
        let tally = observed.tally(&model, object, 1);
        assert_eq!((tally.acknowledged, tally.needed), (0, 2), "{object}");
        assert_eq!(tally.away, ["shop/api-1", "shop/api-2"]);
    }
    for (stream, pod) in [(1, "api-1"), (2, "api-2")] {
        observed.note(
            stream,
            proxy_state(pod, "api", &[], &[(&target, 1), (&group, 1)]),
        );
    }
    let tally = observed.tally(&model, &target, 1);
    assert_eq!((tally.acknowledged, tally.needed), (2, 2));
    assert!(tally.away.is_empty());
}

// Claims: C3
#[test]
fn open_workload_needs_neither_rule_nor_route() {
    let namespace = cluster::namespace("shop");
    let open = shop().with(cluster::annotate(namespace, "weft.dev/access", "open"));
    let model = open.compile().0;
    let observed = Observed::settled();
    let of = |kind, name| observed.tally(&model, &named(kind, name), 1).needed;
    assert_eq!(of(Kind::HttpRouteGroup, "g"), 0);
    assert_eq!(
        of(Kind::TrafficTarget, "t"),
        2,
        "its workload says that it is open"
    );
}

// Claims: C3
#[test]
fn disconnected_caller_keeps_acknowledged_and_lacks_newer_generation() {
    let model = shop().compile().0;
    let observed = Observed::settled();
    observed.note(1, proxy_state("client", "web", &[API], &[(&split(), 1)]));
    observed.ended(1, "shop/client");
    let tally = |generation| observed.tally(&model, &split(), generation);
    let now = tally(1);
    assert_eq!(now.acknowledged, 1, "it goes on with it");
    let next = tally(2);
    assert_eq!(next.acknowledged, 0);
    assert!(next.away.contains(&"shop/client".to_owned()), "{next:?}");

    // Until its pod is gone, or another pod has its name.
    let other = cluster::pod("client", "10.0.0.1", "web");
    let other = cluster::set(other, "/metadata/uid", json!("uid-another"));
    observed.forget_gone(&shop().with(other).compile().0);
    assert_eq!(tally(1).acknowledged, 0);
}

// Claims: C3
#[test]
fn unconnected_pods_of_calling_workload_need_the_split() {
    let model = shop().compile().0;
    let observed = Observed::settled();
    observed.note(1, proxy_state("client", "web", &[API], &[(&split(), 1)]));
    let tally = observed.tally(&model, &split(), 1);
    assert_eq!((tally.acknowledged, tally.needed), (1, 2));
    assert_eq!(tally.away, ["shop/client-2"]);
    // One that is connected and calls something else needs nothing.
    observed.note(
        2,
        proxy_state("client-2", "web", &["destination/10.0.0.11:8080"], &[]),
    );
    let tally = observed.tally(&model, &split(), 1);
    assert_eq!((tally.acknowledged, tally.needed), (1, 1));
}

#[test]
fn connected_caller_needs_new_split_before_next_look() {
    let model = shop().compile().0;
    let observed = Observed::settled();
    observed.note(1, proxy_state("client", "web", &[API], &[]));
    let mut given = proxy_state("client-2", "web", &[], &[]);
    given.given = vec![API.to_owned()];
    observed.note(2, given);
    let tally = observed.tally(&model, &split(), 1);
    assert_eq!((tally.acknowledged, tally.needed), (0, 2));
    assert!(tally.away.is_empty(), "they are connected");
}

// Claims: C3
#[test]
fn started_controller_counts_proxies_not_yet_connected() {
    let model = shop().compile().0;
    let observed = Observed::default();
    let unheard = || observed.tally(&model, &split(), 1).unheard;
    assert_eq!(unheard(), 4);
    let more = shop().with(cluster::pod("client-3", "10.0.0.3", "web"));
    let later = observed.tally(&more.compile().0, &split(), 1).unheard;
    assert_eq!(
        later, 4,
        "a pod that started since knows nothing from before"
    );
    observed.note(1, proxy_state("client", "web", &[API], &[(&split(), 1)]));
    assert_eq!(unheard(), 3);
    let target = named(Kind::TrafficTarget, "t");
    assert_eq!(
        observed.tally(&model, &target, 1).unheard,
        0,
        "has no callers"
    );
    assert_eq!(Observed::settled().tally(&model, &split(), 1).unheard, 0);
}

/// CPU time of this thread.
fn on_cpu() -> Duration {
    let now = rustix::time::clock_gettime(rustix::time::ClockId::ThreadCPUTime);
    Duration::try_from(now).unwrap()
}

/// Many more than may be persisted, many times, as a crawler brings them.
// Claims: B8
#[test]
fn stored_destination_cost_does_not_grow_with_count() {
    let long = |destinations: usize| {
        let mut state = proxy_state("crawler", "web", &[], &[]);
        let name = |at: usize| format!("destination/10.1.{}.{}:80", at / 250, at % 250);
        state.destinations = (0..destinations).map(name).collect();
        let observed = Observed::settled();
        let started = on_cpu();
        for round in 0..6_i64 {
            state.objects = vec![v1::ObjectState {
                object: Some(v1::ObjectRef::from(&split())),
                needed: round,
                ..v1::ObjectState::default()
            }];
            observed.note(1, state.clone());
        }
        assert_eq!(observed.retained("shop", "web").len(), MAX_RETAINED);
        on_cpu() - started
    };
    // The fastest of some tries: what runs beside it takes caches, but none of this time.
    let fastest = |destinations| (0..3).map(|_| long(destinations)).min().unwrap();
    let (few, many) = (fastest(1000), fastest(16_000));
    assert!(many < few * 16 * 5, "{few:?} for 1000, {many:?} for 16 000");
}

#[test]
fn total_destinations_are_bounded_by_evicting_least_recent() {
    let metrics = ObservedMetrics::default();
    let observed = Observed::new(metrics.clone(), 10);
    for (stream, account) in [(1, "one"), (2, "two"), (3, "three")] {
        let mut state = proxy_state(account, account, &[], &[]);
        state.destinations = (0..4)
            .map(|n| format!("destination/10.1.0.{n}:80"))
            .collect();
        observed.note(stream, state);
    }
    let kept = |account| observed.retained("shop", account).len();
    assert_eq!((kept("one"), kept("two"), kept("three")), (0, 4, 4));
    assert_eq!(metrics.destinations_forgotten.get(), 4);
    assert_eq!(metrics.destinations.get(), 8);
}

#[test]
fn proxy_is_lost_once_all_could_have_returned() {
    let pod = PodId::new("shop", "web-1");
    assert!(Observed::default().is_connected(&pod), "just started");
    let settled = Observed::settled();
    assert!(!settled.is_connected(&pod));
    settled.note(1, state("web-1", 1, true));
    assert!(settled.is_connected(&pod));
}

#[test]
fn subscribed_hosts_of_all_replicas_are_known_with_pods() {
    const HOST: &str = "external/api.pay.example:443";
    let observed = Observed::default();
    let mut names = observed.external_names();
    observed.note(1, state("a", 1, true));
    assert!(!names.has_changed().unwrap(), "no host is outside");
    let calling = |pod: &str| {
        let mut state = state(pod, 1, true);
        state.destinations.push(HOST.to_owned());
        state
    };
    observed.note(1, calling("a"));
    let news = v1::Observed {
        full: true,
        proxies: vec![calling("b")],
        ..v1::Observed::default()
    };
    observed.receive(A, news);
    let pods = |names: &ExternalNames| names.get(HOST).map(BTreeSet::len);
    assert_eq!(pods(&names.borrow_and_update()), Some(2));
    observed.note(1, state("a", 1, true));
    assert_eq!(pods(&names.borrow_and_update()), Some(1));
    observed.lost(A);
    assert_eq!(
        pods(&names.borrow_and_update()),
        Some(1),
        "the pod may be there"
    );
}
