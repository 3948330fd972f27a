//! What callers receive for sharing calls out: where endpoints run, what is preferred, and which of
//! its workload's proxies each is.
//!
//! Claims: calls-65

use serde_json::{Value, json};
use wire::v1::balance::Locality;

use crate::fixtures::{self as cluster, *};
use crate::model::{Defaults, Model, PodId};

const API: &str = "10.96.0.1:80";

fn distributed(how: &Value) -> Cluster {
    let api = service("api", "10.96.0.1", &[("http", 80)]);
    shop().with(set(api, "/spec/trafficDistribution", how.clone()))
}

#[test]
fn service_locality_is_sent_with_endpoint_zone_and_node() {
    for (how, expected) in [
        (json!("PreferClose"), Locality::PreferSameZone),
        (json!("PreferSameZone"), Locality::PreferSameZone),
        (json!("PreferSameNode"), Locality::PreferSameNode),
        (json!("PreferTheMoon"), Locality::OfTheService),
        (Value::Null, Locality::OfTheService),
    ] {
        let resolved = distributed(&how).resolve("client", &[API]);
        let endpoints = resolved.endpoints("endpoints/shop/api:80");
        assert_eq!(endpoints.locality(), expected, "{how}");
        let mut sent = endpoints.endpoints.iter();
        assert!(sent.all(|one| one.zone == "zone-a" && one.node == "node-a"));
        let own = resolved.workload();
        assert_eq!([&*own.zone, &*own.node], ["zone-a", "node-a"]);
    }
}

/// Service `api` whose endpoints have these hints, by kind, and are ready.
fn hinted(hints: [Value; 2], ready: bool) -> Cluster {
    let [mut one, mut other] = [
        endpoint("api-1", "10.0.0.11"),
        endpoint("api-2", "10.0.0.12"),
    ];
    let [of_one, of_other] = hints;
    one["zone"] = json!("zone-a");
    other["zone"] = json!("zone-a");
    one["hints"] = of_one;
    other["hints"] = of_other;
    other["conditions"]["ready"] = json!(ready);
    shop().with(slice("api-x", "api", &[("http", 8080)], &[one, other]))
}

/// Zones and nodes that an endpoint is for.
type SentHints = (Vec<String>, Vec<String>);

/// What callers are sent: what is preferred, and for each endpoint its zones and nodes.
fn sent(cluster: &Cluster) -> (Locality, Vec<SentHints>) {
    let resolved = cluster.resolve("client", &[API]);
    let list = resolved.endpoints("endpoints/shop/api:80");
    let locality = list.locality();
    let hints = list.endpoints.into_iter();
    let hints = hints.map(|one| (one.for_zones, one.for_nodes));
    (locality, hints.collect())
}

#[test]
fn zone_hints_require_hints_on_all_ready_endpoints() {
    let zones = |names: &[&str]| {
        let names = names.iter().map(|name| json!({"name": name}));
        json!({"forZones": names.collect::<Vec<Value>>()})
    };
    let names =
        |names: &[&str]| -> Vec<String> { names.iter().map(|name| (*name).to_owned()).collect() };
    let [a, b] = [zones(&["zone-a"]), zones(&["zone-a", "zone-b"])];
    let of_service = Locality::OfTheService;
    let expected = [
        (names(&["zone-a"]), vec![]),
        (names(&["zone-a", "zone-b"]), vec![]),
    ];
    let both = hinted([a.clone(), b.clone()], true);
    assert_eq!(sent(&both), (of_service, expected.to_vec()));
    let unhinted = hinted([b.clone(), Value::Null], true);
    assert_eq!(sent(&unhinted), (of_service, vec![(vec![], vec![]); 2]));
    // One that is not ready needs none.
    let unready = hinted([b.clone(), Value::Null], false);
    assert_eq!(sent(&unready), (of_service, expected[1..].to_vec()));
    // Those that name the own zone of each show what its callers can see.
    let near = hinted([a.clone(), a.clone()], true);
    let plain = vec![(vec![], vec![]); 2];
    assert_eq!(sent(&near), (Locality::PreferSameZone, plain.clone()));
    let local = set(
        service("api", "10.96.0.1", &[("http", 80)]),
        "/spec/internalTrafficPolicy",
        json!("Local"),
    );
    assert_eq!(sent(&both.with(local)), (of_service, plain));
}

#[test]
fn hints_for_nodes_are_sent_as_those_for_zones() {
    let of = |node: &str| json!({"forNodes": [{"name": node}], "forZones": [{"name": "zone-a"}]});
    let plain = vec![(vec![], vec![]); 2];
    let near = hinted([of("node-a"), of("node-a")], true);
    assert_eq!(sent(&near), (Locality::PreferSameNode, plain));
    let (locality, hints) = sent(&hinted([of("node-b"), of("node-a")], true));
    assert_eq!(locality, Locality::OfTheService);
    let node = |name: &str| (vec!["zone-a".to_owned()], vec![name.to_owned()]);
    assert_eq!(hints, [node("node-b"), node("node-a")]);
}

#[test]
fn new_locality_preference_of_service_concerns_its_callers() {
    let defaults = Defaults::default();
    let (before, problems) = shop().compile();
    let now = distributed(&json!("PreferClose")).world();
    let (after, _, changes) = Model::compile_after(&now, &defaults, &before, &problems.into());
    assert!(changes.concern(&interest(&after, "client")));
    let resolved = resolve_newest(&after, "client", &[API]);
    let endpoints = resolved.endpoints("endpoints/shop/api:80");
    assert_eq!(endpoints.locality(), Locality::PreferSameZone);
}

fn interest(model: &Model, pod: &str) -> crate::model::changes::Interest {
    let at = [format!("destination/{API}")];
    model.interest(&PodId::new("shop", pod), &at)
}

/// A pod of Deployment `web`, of this revision and on this node.
fn web(name: &str, last: u8, revision: &str, node: &str) -> Value {
    let mut pod = pod(name, &format!("10.0.1.{last}"), "web");
    pod["metadata"]["labels"] = json!({"pod-template-hash": revision});
    pod["metadata"]["ownerReferences"] = json!([{
        "apiVersion": "apps/v1", "kind": "ReplicaSet", "name": format!("web-{revision}"),
        "uid": "r", "controller": true,
    }]);
    set(pod, "/spec/nodeName", json!(node))
}

/// Four pods of `web`, of which three run; those on node-b are in another zone.
fn callers() -> Cluster {
    let starting = set(
        web("web-b", 2, "1", "node-a"),
        "/status/initContainerStatuses",
        json!([]),
    );
    shop()
        .with(web("web-d", 4, "2", "node-b"))
        .with(web("web-a", 1, "1", "node-a"))
        .with(starting)
        .with(web("web-c", 3, "2", "node-b"))
}

fn in_part(cluster: Cluster) -> Cluster {
    let target = json!({"kind": "Service", "name": "api"});
    let spec = json!({"targetRef": target, "balance": {"subset": -1}});
    cluster.with(cluster::traffic_policy("part", spec))
}

/// The position of a pod's proxy among those of its workload, and of its zone.
fn position(model: &Model, pod: &str) -> Option<[[u32; 2]; 2]> {
    let resolved = resolve_newest(model, pod, &[API]);
    if !resolved.names().contains(&"place") {
        return None;
    }
    let position = resolved.place("place");
    let zone = [position.zone_index, position.zone_peers];
    Some([[position.index, position.peers], zone])
}

#[test]
fn proxies_using_service_subset_receive_their_position() {
    let (model, _) = in_part(callers()).compile();
    assert_eq!(position(&model, "web-a"), Some([[0, 3], [0, 1]]));
    assert_eq!(position(&model, "web-c"), Some([[1, 3], [0, 2]]));
    assert_eq!(position(&model, "web-d"), Some([[2, 3], [1, 2]]));
    assert_eq!(position(&model, "web-b"), None, "it does not run");
    assert_eq!(position(&model, "client"), Some([[0, 1], [0, 1]]));
    // A caller of no Service needs none of that.
    let elsewhere = resolve_newest(&model, "web-a", &["10.96.0.9:80"]);
    assert!(!elsewhere.names().contains(&"place"));
}

#[test]
fn proxies_without_subset_receive_rounded_replica_count() {
    let (model, _) = callers().compile();
    assert_eq!(position(&model, "web-a"), Some([[0, 4], [0, 4]]));
    assert_eq!(position(&model, "web-d"), Some([[0, 4], [0, 4]]), "as all");
    assert_eq!(
        position(&model, "web-b"),
        Some([[0, 4], [0, 4]]),
        "it begins"
    );
    assert_eq!(position(&model, "client"), None, "it is alone");
}

/// The rollout of a Deployment of a thousand sends no thousand messages to each of its pods.
#[test]
fn new_proxy_concerns_replicas_only_when_rounded_count_doubles() {
    let defaults = Defaults::default();
    let mut cluster = callers();
    let (mut before, problems) = cluster.compile();
    let mut problems = problems.into();
    for (last, running) in [(5, 4), (6, 5), (7, 6)] {
        let was = position(&before, "web-a").unwrap()[0][1];
        cluster = cluster.with(web(&format!("web-{last}"), last, "2", "node-a"));
        let (after, found, changes) =
            Model::compile_after(&cluster.world(), &defaults, &before, &problems);
        let is = position(&after, "web-a").unwrap()[0][1];
        assert_eq!(is, u32::next_power_of_two(running));
        assert_eq!(
            changes.concern(&interest(&before, "web-a")),
            is != was,
            "{running}"
        );
        assert!(!changes.concern(&interest(&before, "client")));
        (before, problems) = (after, found);
    }
}

/// An older proxy would refuse what it does not know.
#[test]
fn proxy_without_place_capability_receives_no_place() {
    let (model, _) = in_part(callers()).compile();
    let of = |names: &[&str]| {
        let names: Vec<String> = names.iter().map(|name| (*name).to_owned()).collect();
        let capabilities = wire::capability::Capabilities::named(&names);
        let at = [format!("destination/{API}")].into();
        let resolved = model.resolve(&PodId::new("shop", "web-a"), &at, &capabilities);
        resolved.unwrap().resources.contains_key("place")
    };
    assert!(!of(&["extended-rule", "traffic-policy/warmup"]));
    assert!(of(&["place", "traffic-policy/subset"]));
}

#[test]
fn new_proxy_concerns_only_replicas_with_service_subset() {
    let defaults = Defaults::default();
    for (cluster, concerned) in [(in_part(callers()), true), (callers(), false)] {
        let (before, problems) = cluster.compile();
        // A subscription, else it is not known how many there were.
        assert!(position(&before, "web-a").is_some());
        let now = cluster.with(web("web-e", 5, "2", "node-a")).world();
        let (after, _, changes) = Model::compile_after(&now, &defaults, &before, &problems.into());
        assert_eq!(changes.concern(&interest(&before, "web-a")), concerned);
        assert!(!changes.concern(&interest(&before, "client")));
        if concerned {
            assert_eq!(position(&after, "web-a"), Some([[0, 4], [0, 2]]));
        }
    }
}

/// A pod of something that this one owner controls: group and version, kind, and name.
fn owned(name: &str, last: u8, owner: (&str, &str, &str), labels: Value) -> Value {
    let (api_version, kind, owner) = owner;
    let mut pod = pod(name, &format!("10.0.1.{last}"), "web");
    pod["metadata"]["labels"] = labels;
    pod["metadata"]["ownerReferences"] = json!([{
        "apiVersion": api_version, "kind": kind, "name": owner, "uid": owner, "controller": true,
    }]);
    pod
}

/// Whether two pods share as one workload that these own.
fn together(labels: [Value; 2], owners: [(&str, &str, &str); 2]) -> bool {
    let [of_one, of_other] = labels;
    let cluster = shop()
        .with(owned("run-a", 1, owners[0], of_one))
        .with(owned("run-b", 2, owners[1], of_other));
    let (model, _) = in_part(cluster).compile();
    let seen = ["run-a", "run-b"].map(|run| position(&model, run).unwrap()[0]);
    let together = seen == [[0, 2], [1, 2]];
    assert!(together || seen == [[0, 1], [0, 1]], "{owners:?}: {seen:?}");
    together
}

/// The graph knows them by the owners of Jobs and ReplicaSets, which a World does not have.
// Claims: observe-142
#[test]
fn cronjob_runs_and_rollout_releases_share_one_workload() {
    let released = |hash: &str| json!({"rollouts-pod-template-hash": hash});
    let job = |name: &'static str| ("batch/v1", "Job", name);
    let set = |name: &'static str| ("apps/v1", "ReplicaSet", name);
    for (labels, owners, expected) in [
        (
            [json!({}), json!({})],
            [job("report-29387460"), job("report-29387461")],
            true,
        ),
        (
            [released("1"), released("2")],
            [set("web-1"), set("web-2")],
            true,
        ),
        // Named by their makers alone: by numbers, by dates, by times of 14 digits.
        (
            [json!({}), json!({})],
            [job("report-1"), job("report-2")],
            false,
        ),
        (
            [json!({}), json!({})],
            [job("report-20251128"), job("report-20251129")],
            false,
        ),
        (
            [json!({}), json!({})],
            [job("report-20251128010203"), job("report-20251129010203")],
            false,
        ),
        // Of an Experiment, whose ReplicaSets end with the names of its templates.
        (
            [released("1"), released("2")],
            [set("web-old"), set("web-new")],
            false,
        ),
    ] {
        assert_eq!(together(labels, owners), expected, "{owners:?}");
    }
}

/// The graph shows each pod of them by itself.
// Claims: observe-142
#[test]
fn custom_kinds_are_never_treated_as_kubernetes_kinds() {
    let released = |hash: &str| json!({"pod-template-hash": hash});
    for (api_version, expected) in [("own.example/v1", false), ("batch/v1", true)] {
        let run = |name: &'static str| (api_version, "Job", name);
        for owners in [
            [run("report-29387460"), run("report-29387461")],
            [run("once"), ("batch/v1", "Job", "once")],
        ] {
            let seen = together([json!({}), json!({})], owners);
            assert_eq!(seen, expected, "{owners:?}");
        }
    }
    for (api_version, expected) in [("own.example/v1", false), ("apps/v1", true)] {
        let set = |name: &'static str| (api_version, "ReplicaSet", name);
        let owners = [set("web-1"), set("web-2")];
        let seen = together([released("1"), released("2")], owners);
        assert_eq!(seen, expected, "{owners:?}");
    }
    // Control: one owner, whichever version its kind has by now.
    let run = |api_version: &'static str| (api_version, "Job", "once");
    let runs = [run("own.example/v1"), run("own.example/v2")];
    assert!(together([json!({}), json!({})], runs));
}
