//! Routes of the Gateway API become tables of the Services that are their parents.

use std::collections::BTreeSet;

use http::{HeaderMap, Method};
use policy::http_match::RequestFacts;
use policy::name::Kind;
use policy::reason;
use policy::route::{Forward, Table, edits::Actions};
use serde_json::{Value, json};
use wire::capability::Capabilities;

use super::report;
use crate::fixtures::*;
use crate::model::{Model, PodId, ServiceEntry};
use crate::problem::{ParentReport, Reason};
use crate::world::ObjectKey;

mod backends;
mod foreign;
mod parents;
mod precedence;
mod sizes;

const API: &str = "10.96.0.1:80";
const ROUTED: &str = "service/shop/api:80";

/// Service `api` beside `v1` and `v2`, all of port 80, and a pod of namespace `other`.
fn cluster() -> Cluster {
    let caller = in_namespace(pod("caller", "10.0.1.1", "web"), "other");
    shop()
        .with(service("v1", "10.96.0.11", &[("http", 80)]))
        .with(service("v2", "10.96.0.12", &[("http", 80)]))
        .with(namespace("other"))
        .with(caller)
}

/// The resources of a pod whose proxy carries out routes.
fn resolved(model: &Model, (namespace, pod): (&str, &str)) -> Resolved {
    let names = BTreeSet::from([format!("destination/{API}")]);
    let capabilities = Capabilities::named(&Capabilities::of_everything());
    let set = model.resolve(&PodId::new(namespace, pod), &names, &capabilities);
    Resolved(set.unwrap().resources)
}

/// The table of `api` that the proxy of a pod makes of what it is sent.
fn table_of(cluster: &Cluster, pod: (&str, &str)) -> Table<Forward> {
    let (model, _) = cluster.compile();
    let sent = resolved(&model, pod).routed_service(ROUTED);
    wire::convert::routed_service(&sent).unwrap()
}

fn table(cluster: &Cluster) -> Table<Forward> {
    table_of(cluster, ("shop", "client"))
}

fn entry(model: &Model) -> &ServiceEntry {
    &model.index.services[&ObjectKey::new("shop", "api")]
}

/// Where a request goes.
fn request(table: &Table<Forward>, path: &str) -> Forward {
    let facts = RequestFacts {
        method: &Method::GET,
        path,
        query: None,
        headers: &HeaderMap::new(),
    };
    table.decide(Some(&facts)).0.clone()
}

/// Names, ports and weights of the backends; those that are invalid with a `!` before them.
fn shares(forward: &Forward) -> Vec<(String, u16, u32)> {
    let Forward::Split(backends) = forward else {
        panic!("{forward:?}");
    };
    let named = backends.iter().map(|one| {
        let invalid = if one.invalid { "!" } else { "" };
        (
            format!("{invalid}{}", one.service.name),
            one.port,
            one.weight,
        )
    });
    named.collect()
}

fn share(name: &str, weight: u32) -> (String, u16, u32) {
    (name.to_owned(), 80, weight)
}

/// What is said of the only parent of a route of namespace `shop`.
fn parent(cluster: &Cluster, route: &str) -> ParentReport {
    let (_, problems) = cluster.compile();
    let report = report(&problems, route);
    assert_eq!(report.parents.len(), 1, "{report:?}");
    report.parents[0].clone()
}

/// Status and reason of `Accepted`.
fn accepted(cluster: &Cluster, route: &str) -> (bool, &'static str) {
    let accepted = parent(cluster, route).accepted;
    (accepted.status, accepted.reason)
}

const ACCEPTED: (bool, &str) = (true, "Accepted");

#[test]
fn route_shares_requests_out_with_its_backends_endpoints() {
    let cluster = cluster().with(http_route(
        "web",
        "api",
        json!([rule_over(&[("v1", 90), ("v2", 10)])]),
    ));
    let (model, _) = cluster.compile();
    let sent = resolved(&model, ("shop", "client"));
    let table = wire::convert::routed_service(&sent.routed_service(ROUTED)).unwrap();
    let expected = vec![share("v1", 90), share("v2", 10)];
    assert_eq!(shares(&request(&table, "/a")), expected);
    let (_, origin) = table.decide(Some(&RequestFacts {
        method: &Method::GET,
        path: "/",
        query: None,
        headers: &HeaderMap::new(),
    }));
    assert_eq!(origin.unwrap().to_string(), "HTTPRoute shop/web");
    for backend in ["api", "v1", "v2"] {
        sent.endpoints(&format!("endpoints/shop/{backend}:80"));
    }
    let origins = &sent.published(ROUTED).origins;
    assert_eq!(origins.len(), 1);
    assert_eq!(origins[0].0.to_string(), "HTTPRoute shop/web");

    let report = parent(&cluster, "HTTPRoute web");
    assert_eq!(
        (report.accepted.reason, &*report.ports),
        ("Accepted", &[80][..])
    );
    assert_eq!(report.resolved_refs.reason, "ResolvedRefs");
    assert!(report.accepted.status && report.resolved_refs.status);
    assert_eq!(report.partially_invalid, None);
    assert_eq!(&*report.parent.name, "api");
}

#[test]
fn request_fitting_no_rule_is_refused_and_bytes_pass() {
    let cluster = cluster().with(http_route("web", "api", json!([rule_below("/a", "v1")])));
    let table = table(&cluster);
    assert_eq!(shares(&request(&table, "/a/b")), [share("v1", 1)]);
    let nowhere = Forward::Refuse(reason::Reason::NoRoute);
    assert_eq!(request(&table, "/ab"), nowhere);
    assert_eq!(table.decide(None), (&Forward::Root, None));
}

#[test]
fn matches_of_several_routes_are_one_sorted_list() {
    let cluster = cluster()
        .with(created(
            http_route(
                "old",
                "api",
                json!([rule_below("/a", "v1"), rule_below("/", "v1")]),
            ),
            1,
        ))
        .with(created(
            http_route(
                "new",
                "api",
                json!([rule_below("/a/b", "v2"), rule_below("/", "v2")]),
            ),
            2,
        ));
    let table = table(&cluster);
    for (path, backend) in [("/a", "v1"), ("/a/b/c", "v2"), ("/x", "v1")] {
        assert_eq!(
            shares(&request(&table, path)),
            [share(backend, 1)],
            "{path}"
        );
    }
}

#[test]
fn routes_of_namespace_replace_producers_for_its_callers() {
    let mut own = in_namespace(
        http_route("own", "api", json!([rule_below("/own", "v2")])),
        "other",
    );
    own["spec"]["rules"][0]["backendRefs"][0]["namespace"] = json!("shop");
    let cluster = cluster()
        .with(http_route("web", "api", json!([rule_over(&[("v1", 1)])])))
        .with(own);
    let own = table_of(&cluster, ("other", "caller"));
    assert_eq!(shares(&request(&own, "/own")), [share("v2", 1)]);
    let nowhere = Forward::Refuse(reason::Reason::NoRoute);
    assert_eq!(request(&own, "/"), nowhere, "404 included");
    assert_eq!(shares(&request(&table(&cluster), "/own")), [share("v1", 1)]);

    let (model, problems) = cluster.compile();
    for (namespace, name) in [("shop", "web"), ("other", "own")] {
        let found = problems.reports.iter();
        let mut found = found.filter(|(object, _)| *object.name == *name);
        let (object, report) = found.next().unwrap();
        assert_eq!(&*object.namespace, namespace);
        assert!(
            report.accepted.status && report.resolved_refs.status,
            "{report:?}"
        );
        // Each is needed by the callers that get it, and by no others.
        let through: Vec<String> = model.called_through(object).into_iter().collect();
        assert_eq!(through, [format!("destination/{API}")]);
        for (from, pod) in [("shop", "client"), ("other", "caller")] {
            let gets = resolved(&model, (from, pod));
            let origins = &gets.published(ROUTED).origins;
            let has = origins.iter().any(|(origin, _)| origin == object);
            assert_eq!(
                model.reaches(object, from, &through[0]),
                has,
                "{object} {from}"
            );
            assert_eq!(has, from == namespace, "{object} {from}");
        }
    }
}

#[test]
fn cluster_without_routes_is_sent_as_before() {
    let split = split("s", "api", &[("v1", 1), ("v2", 1)]);
    let (model, problems) = cluster().with(split).compile();
    let newest = resolved(&model, ("shop", "client"));
    let oldest = resolve(&model, "client", &[API]);
    assert_eq!(newest.service(ROUTED).splits.len(), 1);
    assert_eq!(newest.published(ROUTED), &*oldest[ROUTED]);
    assert!(problems.list.is_empty(), "{:?}", problems.list);
}

/// What is done with the calls of the first backend.
fn actions(forward: &Forward) -> Actions {
    let Forward::Split(backends) = forward else {
        panic!("{forward:?}");
    };
    let actions = backends[0].actions.as_deref();
    actions.cloned().unwrap_or_default()
}

fn timed(name: &str) -> Value {
    let mut rule = rule_over(&[("v1", 1), ("v2", 1)]);
    rule["timeouts"] = json!({"request": "2s"});
    rule["retry"] = json!({"attempts": 2, "codes": [503]});
    http_route(name, "api", json!([rule]))
}

#[test]
fn enforced_mesh_policy_takes_timeouts_and_retry_from_rules() {
    let mesh = |enforce: bool| {
        let spec = json!({
            "targetRef": {"kind": "Mesh"}, "enforce": enforce, "retry": {"attempts": 0},
        });
        in_namespace(traffic_policy("mesh", spec), "weft-system")
    };
    let of_rule = |cluster: &Cluster| {
        let actions = actions(&request(&table(cluster), "/"));
        (actions.timeouts.is_some(), actions.retry.is_some())
    };
    let cluster = cluster().with(timed("web"));
    assert_eq!(of_rule(&cluster), (true, true));
    let beside = cluster.clone().with(mesh(false));
    assert_eq!(of_rule(&beside), (true, true), "a rule beats a policy");
    assert_eq!(accepted(&beside, "HTTPRoute web"), ACCEPTED);

    let enforced = cluster.with(mesh(true));
    assert_eq!(of_rule(&enforced), (true, false));
    let (_, problems) = enforced.compile();
    let warned = problems.list.iter();
    let warned = warned.filter(|one| one.reason == Reason::PartlyOverridden);
    let warned: Vec<&str> = warned.map(|one| &*one.field).collect();
    assert_eq!(warned, ["spec.rules[0].retry"]);
    let report = parent(&enforced, "HTTPRoute web");
    assert_eq!((report.accepted.status, report.accepted.reason), ACCEPTED);
    let named = "TrafficPolicy weft-system/mesh, which is enforced for the mesh";
    assert!(report.accepted.message.contains(named), "{report:?}");
}

#[test]
fn matches_beyond_the_bound_cost_the_youngest_route() {
    let long = "x".repeat(900);
    let rules: Vec<Value> = (0..16)
        .map(|rule| {
            let matches = (0..40).map(
                |nth| json!({"path": {"type": "Exact", "value": format!("/{rule}/{nth}/{long}")}}),
            );
            let mut over = rule_over(&[("v1", 1)]);
            over["matches"] = matches.collect();
            over
        })
        .collect();
    let both = cluster()
        .with(created(
            http_route("old", "api", json!([rule_below("/old", "v2")])),
            1,
        ))
        .with(created(http_route("new", "api", json!(rules)), 2));
    assert_eq!(accepted(&both, "HTTPRoute old"), ACCEPTED);
    assert_eq!(
        accepted(&both, "HTTPRoute new"),
        (false, "UnsupportedValue")
    );
    let table = table(&both);
    assert_eq!(shares(&request(&table, "/old")), [share("v2", 1)]);
}
