//! Calls that stay near, and those that use a part of a large Service.
//!
//! Claims: calls-25, calls-63, calls-64

use policy::subset::{PeerPosition, PeerPositions};
use policy::traffic::endpoint::{Balance, Locality, Subset};

use super::*;
use crate::endpoints::location::{LocalInfo, Location, Nearness, TopologyHints};

fn by(balance: &Balance) -> Draw<'_> {
    Draw {
        balance,
        ..Draw::DEFAULT
    }
}

const fn preferring(locality: Locality) -> Balance {
    Balance {
        locality: Some(locality),
        ..Balance::DEFAULT
    }
}

/// Two endpoints in the own zone, the second on the own node, and two elsewhere, which came
/// first.
fn zones() -> EndpointSet {
    let registry = Registry::default();
    let set = set(
        &registry,
        &["10.0.2.1:80", "10.0.2.2:80", "10.0.1.1:80", "10.0.1.2:80"],
    );
    for endpoint in &set.endpoints {
        let zone = if is_near(endpoint.addr) { "a" } else { "b" };
        let node = endpoint.addr.ip().to_string();
        endpoint.runs_at(Location::new(zone, &node));
    }
    set.seen_from(LocalInfo {
        location: Location::new("a", "10.0.1.2"),
        positions: None,
    })
}

fn is_near(addr: SocketAddr) -> bool {
    addr.ip().to_string().starts_with("10.0.1.")
}

/// How many of a hundred calls stay in the own zone.
fn stay(set: &EndpointSet, balance: &Balance) -> usize {
    let picks = (0..100).map(|_| addr(set.pick(&by(balance))));
    picks.filter(|addr| is_near(*addr)).count()
}

#[test]
fn calls_stay_near_if_service_or_overriding_policy_prefers() {
    let set = zones();
    let some = 20..=80;
    assert!(some.contains(&stay(&set, &Balance::DEFAULT)));
    assert_eq!(stay(&set, &preferring(Locality::PreferSameZone)), 100);
    let set = set.preferring(Locality::PreferSameZone);
    assert_eq!(stay(&set, &Balance::DEFAULT), 100);
    assert!(some.contains(&stay(&set, &preferring(Locality::None))));
    // The same list from elsewhere.
    let set = set.seen_from(LocalInfo {
        location: Location::new("b", "n9"),
        positions: None,
    });
    assert_eq!(stay(&set, &Balance::DEFAULT), 0);
}

/// The endpoints of `zones`, those elsewhere meant for callers of zone `a`, and the others for
/// these zones and nodes.
fn hinted(others: (&[&str], &[&str])) -> EndpointSet {
    let names =
        |names: &[&str]| -> Vec<String> { names.iter().map(|name| (*name).to_owned()).collect() };
    let elsewhere = (names(&["a"]), names(&["n1"]));
    let others = (names(others.0), names(others.1));
    let set = zones();
    let all = set.endpoints.iter().map(|endpoint| {
        let (zones, nodes) = if is_near(endpoint.addr) {
            &others
        } else {
            &elsewhere
        };
        (endpoint.addr, &zones[..], &nodes[..])
    });
    let hints = Arc::new(TopologyHints::of(all));
    let own = set.own;
    set.hinting(hints).seen_from(own)
}

#[test]
fn endpoints_meant_for_the_own_zone_come_first() {
    let set = hinted((&["b", "c"], &[]));
    assert_eq!(stay(&set, &Balance::DEFAULT), 0);
    // A policy has the last word, as over trafficDistribution.
    let some = 20..=80;
    assert!(some.contains(&stay(&set, &preferring(Locality::None))));
    let fewer = set.with(set.endpoints[1..].to_vec());
    assert_eq!(stay(&fewer, &Balance::DEFAULT), 0);
    // Where none of them is left, the others are called.
    let tried: Vec<_> = set.endpoints[..2].iter().map(|one| one.addr).collect();
    let left = Draw {
        tried: &tried,
        ..Draw::DEFAULT
    };
    assert!(is_near(addr(set.pick(&left))), "tried");
    let one = set.with(set.endpoints[1..].to_vec());
    let meant = &one.endpoints[0];
    assert!(!is_near(meant.addr));
    for _ in 0..EJECTION.consecutive_failures {
        let seen = Some(HealthSignal::Unreachable);
        let _ = one.record(&mut meant.begin(), Latency::Failed, seen, &EJECTION);
    }
    assert!(meant.is_ejected());
    assert_eq!(stay(&one, &Balance::DEFAULT), 100, "it rests");
}

#[test]
fn hints_count_only_if_all_have_them() {
    let some = 20..=80;
    for (others, location) in [
        // One has none.
        ((&[][..], &[][..]), Location::new("a", "n1")),
        // None is for the own zone.
        ((&["c"][..], &[][..]), Location::new("b", "n9")),
        // The own zone is not known.
        ((&["b"][..], &[][..]), Location::new("", "n9")),
    ] {
        let set = hinted(others).seen_from(LocalInfo {
            location,
            positions: None,
        });
        let near = stay(&set, &Balance::DEFAULT);
        assert!(some.contains(&near), "{others:?}: {near}");
    }
}

#[test]
fn endpoints_hinted_for_own_node_precede_zone() {
    let at = |node: &str| {
        let set = hinted((&["a"], &["n2"])).seen_from(LocalInfo {
            location: Location::new("a", node),
            positions: None,
        });
        stay(&set, &Balance::DEFAULT)
    };
    assert_eq!(at("n1"), 0);
    assert_eq!(at("n2"), 100);
    // Its zone, for which all are meant.
    assert!((20..=80).contains(&at("n3")));
}

#[test]
fn own_node_is_preferred_then_own_zone() {
    let set = zones();
    let node = preferring(Locality::PreferSameNode);
    let picked = || addr(set.pick(&by(&node))).ip().to_string();
    assert!((0..50).all(|_| picked() == "10.0.1.2"));
    let nearness = |at: usize| set.nearness(&set.endpoints[at], &node);
    assert_eq!(nearness(0), Some(Nearness::SameNode));
    assert_eq!(nearness(1), Some(Nearness::SameZone));
    assert_eq!(nearness(2), Some(Nearness::Elsewhere));
    assert_eq!(set.nearness(&set.endpoints[0], &Balance::DEFAULT), None);
    let others = set.with(set.endpoints[1..].to_vec());
    assert_eq!(stay(&others, &node), 100);
    let tried: Vec<_> = set.endpoints[..2].iter().map(|one| one.addr).collect();
    let left = Draw {
        tried: &tried,
        ..by(&node)
    };
    assert!(!is_near(addr(set.pick(&left))), "none is left");
}

#[test]
fn calls_own_node_cannot_serve_stay_in_zone() {
    let set = zones();
    let node = preferring(Locality::PreferSameNode);
    let own = &set.endpoints[0];
    let tried = [own.addr];
    let left = Draw {
        tried: &tried,
        ..by(&node)
    };
    assert!((0..100).all(|_| is_near(addr(set.pick(&left)))), "tried");
    own.record_load(100);
    assert_eq!(stay(&set, &node), 100, "busy");
    own.record_load(0);
    for _ in 0..EJECTION.consecutive_failures {
        let seen = Some(HealthSignal::Unreachable);
        let _ = set.record(&mut own.begin(), Latency::Failed, seen, &EJECTION);
    }
    assert!(own.is_ejected());
    assert_eq!(stay(&set, &node), 100, "it rests");
}

#[tokio::test(start_paused = true)]
async fn busy_zone_is_avoided_temporarily_for_less_busy_one() {
    let set = zones().preferring(Locality::PreferSameZone);
    let report = |near: u8, far: u8| {
        for endpoint in &set.endpoints {
            endpoint.record_load(if is_near(endpoint.addr) { near } else { far });
        }
        stay(&set, &Balance::DEFAULT)
    };
    assert_eq!(report(49, 0), 100);
    assert_eq!(report(50, 31), 100);
    assert_eq!(report(50, 30), 0);
    assert_eq!(report(90, 0), 0);
    tokio::time::advance(Duration::from_secs(5)).await;
    assert_eq!(stay(&set, &Balance::DEFAULT), 100, "half of it is left");
}

#[tokio::test(start_paused = true)]
async fn busy_endpoint_gets_fewer_calls_until_report_fades() {
    let registry = Registry::default();
    let set = set(&registry, &["10.0.0.1:80", "10.0.0.2:80"]);
    for endpoint in &set.endpoints {
        let head = Latency::Head(Duration::from_millis(20));
        endpoint.begin().learn(head);
    }
    let first = || {
        let picks = (0..100).map(|_| addr(set.pick(&Draw::DEFAULT)));
        picks.filter(|addr| *addr == set.endpoints[0].addr).count()
    };
    assert!((20..=80).contains(&first()));
    set.endpoints[0].record_load(100);
    // An eighth: of the half that it would win, a quarter.
    assert!((1..=30).contains(&first()));
    tokio::time::advance(Duration::from_secs(10)).await;
    assert!((20..=80).contains(&first()));
}

/// Two hundred endpoints, as the third of ten callers sees them.
fn large() -> EndpointSet {
    let registry = Registry::default();
    let addrs: Vec<String> = (0..200).map(|at| format!("10.0.{at}.1:80")).collect();
    let addrs: Vec<&str> = addrs.iter().map(String::as_str).collect();
    let position = PeerPosition {
        index: 2,
        peers: 10,
    };
    set(&registry, &addrs).seen_from(LocalInfo {
        location: Location::default(),
        positions: Some(PeerPositions {
            all: position,
            zone: position,
        }),
    })
}

const PART: Balance = Balance {
    subset: Subset::Automatic,
    ..Balance::DEFAULT
};

fn used(set: &EndpointSet, balance: &Balance) -> BTreeSet<SocketAddr> {
    let picks = (0..5000).map(|_| addr(set.pick(&by(balance))));
    picks.collect()
}

#[test]
fn large_service_uses_subset_only_if_configured_and_located() {
    let set = large();
    assert_eq!(used(&set, &Balance::DEFAULT).len(), 200);
    let part = used(&set, &PART);
    assert_eq!(part.len(), 20);
    assert_eq!(used(&set, &PART), part);
    // Beside it another policy leads there.
    let few = Balance {
        subset: Subset::Count(30),
        ..Balance::DEFAULT
    };
    assert_eq!(used(&set, &few).len(), 40);
    assert_eq!(used(&set, &PART), part);
    let unlocated = set.seen_from(LocalInfo::default());
    assert_eq!(used(&unlocated, &PART).len(), 200);
}

#[test]
fn call_failing_on_complete_subset_goes_beyond_it() {
    let set = large();
    let part: Vec<SocketAddr> = used(&set, &PART).into_iter().collect();
    let draw = Draw {
        tried: &part,
        ..by(&PART)
    };
    assert!(!part.contains(&addr(set.pick(&draw))));
}

#[test]
fn a_part_is_wider_by_as_many_as_rest() {
    let set = large();
    let part = used(&set, &PART);
    let first = set.endpoints.iter().find(|one| part.contains(&one.addr));
    let dead = first.unwrap();
    for _ in 0..EJECTION.consecutive_failures {
        let signal = Some(HealthSignal::Unreachable);
        let _ = set.record(&mut dead.begin(), Latency::Failed, signal, &EJECTION);
    }
    let wider = used(&set, &PART);
    assert!(!wider.contains(&dead.addr));
    assert_eq!(wider.len(), 20, "one that rests, and one more");
    assert_eq!(wider.difference(&part).count(), 1);
}

#[test]
fn tenants_and_sessions_are_not_held_to_a_part() {
    let set = large();
    let keys = (0..1000).map(|key: usize| Key::of(&key.to_be_bytes()));
    let tenants: BTreeSet<_> = keys
        .map(|key| addr(set.of_tenant(key, &by(&PART))))
        .collect();
    assert!(tenants.len() > 150, "{}", tenants.len());
    let sessions = (0..1000).map(|epoch| addr(set.of_session("web", epoch, &by(&PART))));
    assert!(sessions.collect::<BTreeSet<_>>().len() > 150);
}

/// Ten endpoints, of which the first three are near and are the part that is used.
fn near_part() -> (EndpointSet, Balance) {
    let registry = Registry::default();
    let near = (1..=3).map(|at| format!("10.0.1.{at}:80"));
    let far = (1..=7).map(|at| format!("10.0.2.{at}:80"));
    let addrs: Vec<String> = near.chain(far).collect();
    let addrs: Vec<&str> = addrs.iter().map(String::as_str).collect();
    let set = set(&registry, &addrs);
    for endpoint in &set.endpoints {
        let zone = if is_near(endpoint.addr) { "a" } else { "b" };
        endpoint.runs_at(Location::new(zone, &endpoint.addr.ip().to_string()));
    }
    let position = PeerPosition { index: 0, peers: 1 };
    let set = set.seen_from(LocalInfo {
        location: Location::new("a", "elsewhere"),
        positions: Some(PeerPositions {
            all: position,
            zone: position,
        }),
    });
    let balance = Balance {
        subset: Subset::Count(2),
        ..preferring(Locality::PreferSameZone)
    };
    (set, balance)
}

#[test]
fn fully_ejected_subset_is_avoided_while_others_work() {
    let (set, balance) = near_part();
    assert_eq!(stay(&set, &balance), 100, "the control");
    for endpoint in set.endpoints.iter().filter(|one| is_near(one.addr)) {
        for _ in 0..EJECTION.consecutive_failures {
            let signal = Some(HealthSignal::Unreachable);
            let _ = set.record(&mut endpoint.begin(), Latency::Failed, signal, &EJECTION);
        }
        assert!(endpoint.is_ejected());
    }
    assert_eq!(stay(&set, &balance), 0);
    // Where no others are left they are tried all the same.
    let far = set.endpoints.iter().map(|one| one.addr);
    let far: Vec<SocketAddr> = far.filter(|addr| !is_near(*addr)).collect();
    let draw = Draw {
        tried: &far,
        ..by(&balance)
    };
    assert!(is_near(addr(set.pick(&draw))));
}

/// Only retries would ever come to the others otherwise, of which a Service with few calls has
/// one a second.
#[test]
fn calls_go_further_when_all_near_endpoints_fail() {
    let set = zones();
    let near = preferring(Locality::PreferSameZone);
    let fail = |at: usize| {
        let mut attempt = set.endpoints[at].begin();
        let head = Latency::of_head(Duration::from_millis(1), false);
        set.record(&mut attempt, head, Some(HealthSignal::Failed), &EJECTION)
    };
    for _ in 0..4 {
        assert_eq!([fail(0), fail(1)], [None, None]);
    }
    assert_eq!(stay(&set, &near), 100);
    assert_eq!([fail(0), fail(1)], [None, None], "none to compare with");
    assert_eq!(stay(&set, &near), 0);
    // Control: one of them is good again.
    let head = Latency::Head(Duration::from_millis(1));
    let good = |at: usize| {
        let mut attempt = set.endpoints[at].begin();
        assert_eq!(
            set.record(&mut attempt, head, Some(HealthSignal::Good), &EJECTION),
            None
        );
    };
    good(1);
    assert!(stay(&set, &near) > 50);
    for _ in 0..200 {
        good(2);
    }
    assert_eq!(fail(0), Some(EjectedFor::Failures));
}

#[test]
fn sticky_caller_keeps_next_endpoint_when_its_own_fails() {
    let registry = Registry::default();
    let set = set(&registry, &["10.0.0.1:80", "10.0.0.2:80", "10.0.0.3:80"]);
    let session = || addr(set.of_session("shop/web-1", 7, &Draw::DEFAULT));
    let fail = |of: SocketAddr| {
        let endpoint = set.endpoints.iter().find(|one| one.addr == of).unwrap();
        for _ in 0..5 {
            let head = Latency::of_head(Duration::from_millis(1), false);
            let _ = set.record(
                &mut endpoint.begin(),
                head,
                Some(HealthSignal::Failed),
                &EJECTION,
            );
        }
    };
    let first = session();
    fail(first);
    let second = session();
    assert_ne!(second, first);
    // One of three, as with ejections: a caller that fails by itself takes no other's endpoints.
    fail(second);
    assert_eq!(session(), second);
}

/// Far ones are not drawn in calm times, so none is probed.
#[tokio::test(start_paused = true)]
async fn expired_unprobed_ejection_no_longer_counts() {
    let registry = Registry::default();
    let set = set(&registry, &["10.0.0.1:80", "10.0.0.2:80", "10.0.0.3:80"]);
    let unreachable = |at: usize| {
        let mut attempt = set.endpoints[at].begin();
        let signal = Some(HealthSignal::Unreachable);
        set.record(&mut attempt, Latency::Failed, signal, &EJECTION)
    };
    let ejected_for = |at: usize| (0..5).find_map(|_| unreachable(at));
    assert_eq!(ejected_for(0), Some(EjectedFor::Unreachable));
    assert_eq!(ejected_for(1), None, "one of three at a time");
    tokio::time::sleep(EJECTION.base_time * 2).await;
    assert_eq!(ejected_for(1), Some(EjectedFor::Unreachable));
    // Its probe fails while another one has the place: two of three are never ejected together.
    let probe = || {
        let mut draws = (0..100).filter_map(|_| set.pick(&Draw::DEFAULT));
        draws.find(InFlight::probes)
    };
    let mut probe = probe().expect("it is due");
    assert_eq!(probe.endpoint().addr, set.endpoints[0].addr);
    let signal = Some(HealthSignal::Unreachable);
    let change = set.record(&mut probe, Latency::Failed, signal, &EJECTION);
    assert_eq!(change, None);
    let rest_now = || {
        set.endpoints
            .iter()
            .map(|one| one.is_ejected())
            .collect::<Vec<_>>()
    };
    assert_eq!(rest_now(), [false, true, false]);
    assert_eq!(unreachable(0), None, "still one of three at a time");
    // Its next failure finds a place once there is one.
    tokio::time::sleep(EJECTION.base_time * 2).await;
    assert_eq!(unreachable(0), Some(EjectedFor::Unreachable));
}
