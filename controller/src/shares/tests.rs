//! Limits that are divided: by which replica, and among which pods.
//!
//! Claims: calls-66

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use model::world::ObjectKey;
use model::{Defaults, Model};
use policy::limit::shares::LEAVES;
use serde_json::json;
use tokio::time::Instant;
use wire::v1;

use super::demand::{Demand, demands};
use super::divide::Divider;
use super::key::{LimitKey, ShareOf};
use super::registry::{ABSENT_AFTER, ShareRegistry};
use crate::testing::cluster::{self, Cluster};

mod kept;

const SECOND: Duration = Duration::from_secs(1);
const TERM: u64 = 7;

fn with_limit(requests: u32) -> Cluster {
    let spec = json!({
        "targetRef": {"kind": "Service", "name": "api"},
        "rateLimits": [
            {"name": "all", "requests": requests},
            {"name": "each", "requests": 5, "scope": "Instance"},
        ],
    });
    cluster::shop().with(cluster::traffic_policy("p", spec))
}

fn demanded(cluster: &Cluster) -> BTreeMap<LimitKey, Demand> {
    let (model, _) = Model::compile(&Arc::new(cluster.world()), &Defaults::default());
    demands(&model.index)
}

/// A replica, with the pods that stream to it.
struct Replica {
    share_registry: ShareRegistry,
    ip: IpAddr,
    revisions: BTreeMap<IpAddr, u64>,
    /// What its pods use, in thousandths.
    use_of: BTreeMap<Arc<str>, u64>,
}

impl Replica {
    fn new(last: u8, pods: &[&str], now: Instant) -> Self {
        let share_registry = ShareRegistry::default();
        for (at, pod) in pods.iter().enumerate() {
            share_registry.connected(&Arc::from(*pod), at as u64 + 1, now);
        }
        Self {
            share_registry,
            ip: IpAddr::from([10, 0, 0, last]),
            revisions: BTreeMap::new(),
            use_of: pods.iter().map(|pod| (Arc::from(*pod), 0)).collect(),
        }
    }

    fn receive(&mut self, other: &Self, now: Instant) {
        let since = self.revisions.entry(other.ip).or_default();
        let (latest, news) = other.share_registry.own_since(*since);
        *since = latest;
        if let Some(news) = news {
            self.share_registry.receive(other.ip, &news, now);
        }
    }

    /// Its pods get what they are given, and answer.
    fn serves(&mut self) {
        for (pod, uses) in &mut self.use_of {
            for share in self.share_registry.send(pod) {
                *uses = share.thousandths;
                let taken = vec![v1::ShareTaken {
                    of: share.of,
                    term: share.term,
                    number: share.number,
                }];
                self.share_registry.taken(pod, &v1::SharesTaken { taken });
            }
        }
    }
}

/// One look of the divider.
fn divide(
    share_registry: &ShareRegistry,
    divider: &mut Divider,
    demand: &BTreeMap<LimitKey, Demand>,
    now: Instant,
) {
    divide_in(TERM, share_registry, divider, demand, now);
}

fn divide_in(
    term: u64,
    share_registry: &ShareRegistry,
    divider: &mut Divider,
    demand: &BTreeMap<LimitKey, Demand>,
    now: Instant,
) {
    let mut messages = Vec::new();
    for gone in share_registry.forget(now, |_| true) {
        messages.extend(divider.remove_pod(&gone));
    }
    for (uid, of, number) in share_registry.taken_of(term) {
        messages.extend(divider.taken(&uid, &of, number));
    }
    let at = now.into_std();
    messages.extend(divider.update(at, demand, &share_registry.pods()));
    messages.extend(divider.tick(at));
    share_registry.give(term, messages);
}

#[test]
fn only_service_limit_is_demanded_of_its_ready_pods() {
    let begins = json!({"addresses": ["10.0.0.13"], "conditions": {"ready": false},
        "targetRef": {"kind": "Pod", "namespace": "shop", "name": "api-3"}});
    let cluster = with_limit(100)
        .with(cluster::pod("api-3", "10.0.0.13", "api"))
        .with(cluster::slice("api-y", "api", &[("http", 8080)], &[begins]));
    let all = demanded(&cluster);
    let [(key, demand)] = &all.iter().collect::<Vec<_>>()[..] else {
        panic!("{all:?}")
    };
    assert_eq!((&*key.of.limit, key.port), ("all", 80));
    assert_eq!(demand.requests, 100);
    let pods: Vec<(&str, u16)> = demand
        .pods
        .iter()
        .map(|(uid, port)| (&**uid, *port))
        .collect();
    assert_eq!(pods, [("uid-api-1", 8080), ("uid-api-2", 8080)]);
    let keepers: Vec<&str> = demand.keepers.keys().map(|uid| &**uid).collect();
    assert_eq!(keepers, ["uid-api-1", "uid-api-2", "uid-api-3"]);
    assert!(demanded(&cluster::shop()).is_empty());
}

#[test]
fn pods_of_two_replicas_reach_limit_without_exceeding_it() {
    settled(Instant::now());
}

/// A pod at each of two replicas, of which the first one divides, with half of the limit each.
fn settled(now: Instant) -> (Replica, Replica, Divider) {
    let demand = demanded(&with_limit(100));
    let (mut one, mut two) = (
        Replica::new(1, &["uid-api-1"], now),
        Replica::new(2, &["uid-api-2"], now),
    );
    let mut divider = Divider::default();
    // At first only one of them is known.
    divide(&one.share_registry, &mut divider, &demand, now);
    one.serves();
    assert_eq!(one.use_of["uid-api-1"], 100_000);
    go_on(&mut one, &mut two, &mut divider, &demand, now);
    assert_eq!(one.use_of["uid-api-1"], 50_000);
    assert_eq!(two.use_of["uid-api-2"], 50_000);
    (one, two, divider)
}

/// Both receive and report for some rounds, in which their pods use no more than before.
fn go_on(
    one: &mut Replica,
    two: &mut Replica,
    divider: &mut Divider,
    demand: &BTreeMap<LimitKey, Demand>,
    now: Instant,
) {
    for round in 0..6 {
        let now = now + SECOND * round;
        one.receive(two, now);
        divide(&one.share_registry, divider, demand, now);
        two.receive(one, now);
        two.serves();
        let sum = one.use_of["uid-api-1"] + two.use_of["uid-api-2"];
        assert!(sum <= 100_000, "{sum} in round {round}");
        one.serves();
    }
}

#[test]
fn restored_limit_is_divided_anew_at_every_replica() {
    let now = Instant::now();
    let (mut one, mut two, mut divider) = settled(now);
    divide(&one.share_registry, &mut divider, &BTreeMap::new(), now);
    let demand = demanded(&with_limit(10));
    go_on(&mut one, &mut two, &mut divider, &demand, now);
    assert_eq!(one.use_of["uid-api-1"], 5_000);
    assert_eq!(two.use_of["uid-api-2"], 5_000);
    // What shrank was received, so what is free now can be given.
    let demand = demanded(&with_limit(20));
    go_on(&mut one, &mut two, &mut divider, &demand, now);
    assert_eq!(two.use_of["uid-api-2"], 10_000);
}

#[test]
fn new_divider_counts_share_of_unready_pod() {
    let now = Instant::now();
    let demand = demanded(&with_limit(100));
    let mut one = Replica::new(1, &["uid-api-1"], now);
    let mut divider = Divider::default();
    divide(&one.share_registry, &mut divider, &demand, now);
    one.serves();
    let mut two = Replica::new(2, &["uid-api-2"], now);
    two.receive(&one, now);
    // Another replica divides from now on, and one of the pods is not ready.
    let mut demand = demand;
    for one in demand.values_mut() {
        one.pods.remove("uid-api-1");
    }
    let mut divider = Divider::default();
    let mut look = |one: &mut Replica, two: &mut Replica, now: Instant| {
        divide_in(TERM + 1, &two.share_registry, &mut divider, &demand, now);
        two.serves();
        let sum = one.use_of["uid-api-1"] + two.use_of["uid-api-2"];
        assert!(sum <= 100_000, "{sum}");
        one.receive(two, now);
        one.serves();
        two.receive(one, now);
    };
    look(&mut one, &mut two, now);
    assert_eq!(two.use_of["uid-api-2"], 0, "the first one has all of it");
    look(&mut one, &mut two, now + LEAVES / 2);
    look(&mut one, &mut two, now + LEAVES);
    assert_eq!(one.use_of["uid-api-1"], 0, "callers have left it");
    look(&mut one, &mut two, now + LEAVES);
    assert_eq!(two.use_of["uid-api-2"], 100_000);
}

#[test]
fn new_divider_continues_from_current_shares() {
    let now = Instant::now();
    let demand = demanded(&with_limit(100));
    let mut one = Replica::new(1, &["uid-api-1"], now);
    let mut divider = Divider::default();
    divide(&one.share_registry, &mut divider, &demand, now);
    one.serves();
    // Another replica holds the Lease, and has a pod of its own.
    let mut two = Replica::new(2, &["uid-api-2"], now);
    two.receive(&one, now);
    let mut divider = Divider::default();
    divide_in(TERM + 1, &two.share_registry, &mut divider, &demand, now);
    two.serves();
    assert_eq!(two.use_of["uid-api-2"], 0, "the first one has all of it");
    one.receive(&two, now);
    one.serves();
    assert_eq!(one.use_of["uid-api-1"], 50_000);
    two.receive(&one, now);
    divide_in(TERM + 1, &two.share_registry, &mut divider, &demand, now);
    two.serves();
    assert_eq!(two.use_of["uid-api-2"], 50_000);
}

#[test]
fn pod_in_another_service_shares_its_limit_there() {
    let now = Instant::now();
    let demand = demanded(&with_limit(100));
    let mut one = Replica::new(1, &["uid-api-1"], now);
    let mut divider = Divider::default();
    divide(&one.share_registry, &mut divider, &demand, now);
    one.serves();
    let (key, mut left) = demand.into_iter().next().unwrap();
    let mut joined = left.clone();
    for (demand, gone) in [(&mut left, "uid-api-1"), (&mut joined, "uid-api-2")] {
        demand.pods.remove(gone);
        demand.keepers.remove(gone);
    }
    joined.requests = 60;
    let other = LimitKey {
        service: ObjectKey::new("shop", "other"),
        ..key.clone()
    };
    let demand = BTreeMap::from([(key, left), (other, joined)]);
    for after in [Duration::ZERO, LEAVES, 2 * LEAVES] {
        divide(&one.share_registry, &mut divider, &demand, now + after);
        one.serves();
        assert_eq!(one.use_of["uid-api-1"], 60_000, "{after:?}");
    }
}

/// Service `all` selects the two pods of `api` and two others, by the same port.
fn overlapping() -> Cluster {
    let spec = json!({
        "targetRef": {"kind": "Namespace"},
        "rateLimits": [{"name": "all", "requests": 100}],
    });
    let addrs = ["10.0.0.11", "10.0.0.12", "10.0.0.13", "10.0.0.14"];
    let names = ["api-1", "api-2", "api-3", "api-4"];
    let endpoints: Vec<_> = names
        .iter()
        .zip(addrs)
        .map(|(name, ip)| cluster::endpoint(name, ip))
        .collect();
    cluster::shop()
        .with(cluster::pod("api-3", "10.0.0.13", "api"))
        .with(cluster::pod("api-4", "10.0.0.14", "api"))
        .with(cluster::service("whole", "10.96.0.2", &[("http", 80)]))
        .with(cluster::slice(
            "whole-x",
            "whole",
            &[("http", 8080)],
            &endpoints,
        ))
        .with(cluster::traffic_policy("p", spec))
}

#[test]
fn pod_in_two_services_shares_limit_in_each() {
    let now = Instant::now();
    let pods = ["uid-api-1", "uid-api-2", "uid-api-3", "uid-api-4"];
    let mut one = Replica::new(1, &pods, now);
    let mut divider = Divider::default();
    let mut demand = demanded(&overlapping());
    let sizes: Vec<usize> = demand.values().map(|demand| demand.pods.len()).collect();
    assert_eq!(sizes, [2, 4]);
    for round in 0..6 {
        divide(
            &one.share_registry,
            &mut divider,
            &demand,
            now + SECOND * round,
        );
        one.serves();
        let sum: u64 = one.use_of.values().sum();
        assert!(sum <= 100_000, "{sum} in round {round}");
    }
    assert!(one.use_of.values().all(|part| *part == 25_000));
    // One of the larger Service goes, and the other three get its part.
    for demand_of_pod in demand.values_mut() {
        demand_of_pod.pods.remove("uid-api-4");
        demand_of_pod.keepers.remove("uid-api-4");
    }
    let later = now + 2 * LEAVES;
    for after in [Duration::ZERO, LEAVES, LEAVES, 2 * LEAVES] {
        divide(&one.share_registry, &mut divider, &demand, later + after);
        one.serves();
        let sum: u64 = one.use_of.values().sum();
        assert!(sum <= 100_000, "{sum} after {after:?}");
    }
    assert_eq!(one.use_of["uid-api-3"], 33_333);
    assert_eq!(one.use_of["uid-api-1"], 33_333);
    // What held two of them to that is no Service any more.
    demand.retain(|key, _| *key.service.name == *"api");
    for after in [3, 4] {
        divide(
            &one.share_registry,
            &mut divider,
            &demand,
            later + after * LEAVES,
        );
        one.serves();
    }
    assert_eq!(one.use_of["uid-api-1"], 50_000);
    assert_eq!(one.use_of["uid-api-2"], 50_000);
}

#[test]
fn share_survives_brief_absence_but_not_long_one() {
    let now = Instant::now();
    let demand = demanded(&with_limit(100));
    let mut one = Replica::new(1, &["uid-api-1", "uid-api-2"], now);
    let mut divider = Divider::default();
    for _ in 0..2 {
        divide(&one.share_registry, &mut divider, &demand, now);
        one.serves();
    }
    let pods: BTreeSet<u64> = one.use_of.values().copied().collect();
    assert_eq!(pods, BTreeSet::from([50_000]));
    let gone: Arc<str> = "uid-api-2".into();
    one.share_registry.ended(&gone, 2, now);
    let later = now + ABSENT_AFTER - SECOND;
    divide(&one.share_registry, &mut divider, &demand, later);
    one.serves();
    assert_eq!(one.use_of["uid-api-1"], 50_000, "it may come back");
    divide(
        &one.share_registry,
        &mut divider,
        &demand,
        now + ABSENT_AFTER,
    );
    one.use_of.remove(&gone);
    one.serves();
    assert_eq!(one.use_of["uid-api-1"], 100_000);
}

#[test]
fn share_message_names_its_limit_and_rejects_others() {
    let (key, _) = demanded(&with_limit(1)).into_iter().next().unwrap();
    let of = ShareOf {
        port: 8080,
        of: key.of,
    };
    assert_eq!(ShareOf::read(&of.message()), Some(of.clone()));
    let ports = v1::ShareOf {
        port: 1 << 16,
        ..of.message()
    };
    assert_eq!(ShareOf::read(&ports), None);
    let without_origin = v1::ShareOf {
        origin: None,
        ..of.message()
    };
    assert_eq!(ShareOf::read(&without_origin), None);
}
