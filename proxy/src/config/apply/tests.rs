//! What a refused resource leaves behind.
//!
//! Claims: attack-48, calls-20

use std::net::SocketAddr;
use std::time::Duration;

use policy::access::Caller;
use policy::balance::Candidate;
use policy::name::SpiffeId;
use policy::traffic::part::{Part, Side};
use wire::capability::Capability;
use wire::v1;
use wire::v1::destination::Target;
use wire::v1::resource::Content;
use wire::v1::source::Who;

use super::*;
use crate::endpoints::learned::Draw;

const WEB: &str = "spiffe://cluster.local/ns/shop/sa/web";
const NO_IDENTITY: &str = "spiffe://somewhere else";

fn resource(name: &str, content: Option<Content>) -> v1::Resource {
    wire::version::stamp(v1::Resource {
        name: name.to_owned(),
        version: String::new(),
        content,
    })
}

fn rule(name: &str) -> v1::Rule {
    v1::Rule {
        origin: Some(v1::ObjectRef {
            kind: "TrafficTarget".to_owned(),
            namespace: "shop".to_owned(),
            name: name.to_owned(),
        }),
        sources: vec![v1::Source {
            who: Some(Who::SpiffeId(WEB.to_owned())),
        }],
        ports: Some(v1::PortSet {
            any: true,
            ports: Vec::new(),
        }),
        ..v1::Rule::default()
    }
}

fn workload() -> v1::Workload {
    v1::Workload {
        identity: WEB.to_owned(),
        enforcement: v1::Enforcement::Open.into(),
        mtls: v1::MtlsMode::Permissive.into(),
        ports: vec![v1::PortProtocol {
            first: 80,
            last: 80,
            protocol: v1::Protocol::Opaque.into(),
        }],
        ..v1::Workload::default()
    }
}

fn endpoint(ip: &str, identity: &str) -> v1::Endpoint {
    v1::Endpoint {
        ip: ip.to_owned(),
        port: 80,
        identity: identity.to_owned(),
        ..v1::Endpoint::default()
    }
}

/// The snapshot after one more batch, and how many resources of it were refused.
fn after(before: &Snapshot, registry: &Registry, set: Vec<v1::Resource>) -> (Snapshot, usize) {
    let batch = v1::Batch {
        set,
        ..v1::Batch::default()
    };
    let (next, nacks) = before.after(batch, registry);
    (next, nacks.len())
}

/// Every way in which a rule can be wrong, or newer than this version.
fn unusable_rules() -> Vec<(&'static str, v1::Resource)> {
    let name = wire::names::rule("shop", "t");
    let of = |change: fn(&mut v1::Rule)| {
        let mut rule = rule("t");
        change(&mut rule);
        resource(&name, Some(Content::Rule(rule)))
    };
    let matching = |one: v1::HttpMatch| v1::HttpMatches { matches: vec![one] };
    let mut wrong_path = rule("t");
    wrong_path.http = Some(matching(v1::HttpMatch {
        path_regex: Some("/((".to_owned()),
        ..v1::HttpMatch::default()
    }));
    let mut beyond_a_bound = rule("t");
    beyond_a_bound.http = Some(matching(v1::HttpMatch {
        path_regex: Some("(a{1000}){1000}".to_owned()),
        ..v1::HttpMatch::default()
    }));
    vec![
        ("no origin", of(|rule| rule.origin = None)),
        (
            "an unknown source",
            of(|rule| rule.sources.push(v1::Source { who: None })),
        ),
        (
            "a wrong identity",
            of(|rule| {
                rule.sources = vec![v1::Source {
                    who: Some(Who::SpiffeId(NO_IDENTITY.to_owned())),
                }];
            }),
        ),
        (
            "a wrong port",
            of(|rule| {
                rule.ports = Some(v1::PortSet {
                    any: false,
                    ports: vec![65_536],
                });
            }),
        ),
        (
            "a wrong limit",
            of(|rule| {
                rule.limit = Some(v1::PortSet {
                    any: false,
                    ports: vec![0],
                });
            }),
        ),
        (
            "a wrong path",
            resource(&name, Some(Content::Rule(wrong_path))),
        ),
        (
            "a path beyond a bound",
            resource(&name, Some(Content::Rule(beyond_a_bound))),
        ),
        ("an unknown kind", resource(&name, None)),
    ]
}

/// A proxy that goes on and one that starts now receive the same, and allow the same.
#[test]
fn refused_rule_equals_fresh_start_and_affects_no_other() {
    let registry = Registry::default();
    let mut modes = workload();
    modes.enforcement = v1::Enforcement::Enforce.into();
    let modes = resource(wire::names::WORKLOAD, Some(Content::Workload(modes)));
    let other = resource(
        &wire::names::rule("shop", "u"),
        Some(Content::Rule(v1::Rule {
            ports: Some(v1::PortSet {
                any: false,
                ports: vec![81],
            }),
            ..rule("u")
        })),
    );
    let former = resource(
        &wire::names::rule("shop", "t"),
        Some(Content::Rule(rule("t"))),
    );
    let set = vec![modes.clone(), other.clone(), former];
    let (before, refused) = after(&Snapshot::default(), &registry, set);
    assert_eq!(refused, 0);
    let web = SpiffeId::try_from(WEB).unwrap();
    let passes = |snapshot: &Snapshot, port| {
        let verdict =
            (snapshot.access).decide(Caller::mesh(&web), port, access::EvaluatedTraffic::Bytes);
        verdict.is_allowed()
    };
    assert!(passes(&before, 80) && passes(&before, 81));

    for (case, unusable) in unusable_rules() {
        let (now, refused) = after(&before, &registry, vec![unusable.clone()]);
        assert_eq!(refused, 1, "{case}");
        assert!(!passes(&now, 80), "{case}: the former rule allows on");
        assert!(passes(&now, 81), "{case}: it took another rule down");
        assert!(now.policy_revision > before.policy_revision, "{case}");
        let fresh = vec![modes.clone(), other.clone(), unusable];
        let (fresh, refused) = after(&Snapshot::default(), &registry, fresh);
        assert_eq!(refused, 1, "{case}");
        assert_eq!(now.access, fresh.access, "{case}");
        assert_eq!(now.resource_versions(), fresh.resource_versions(), "{case}");
    }
}

#[test]
fn a_refused_workload_leaves_the_former_modes() {
    let registry = Registry::default();
    let of = |workload| resource(wire::names::WORKLOAD, Some(Content::Workload(workload)));
    let wrong_identity = v1::Workload {
        identity: NO_IDENTITY.to_owned(),
        ..workload()
    };
    let mut wrong_port = workload();
    wrong_port.ports[0].last = 65_536;
    let mut backwards = workload();
    backwards.ports[0].last = 79;
    let mut tight = workload();
    tight.set_mtls(v1::MtlsMode::Strict);
    tight.set_enforcement(v1::Enforcement::Enforce);

    for former in [workload(), tight] {
        let (before, refused) = after(&Snapshot::default(), &registry, vec![of(former)]);
        assert_eq!(refused, 0);
        for unusable in [
            of(wrong_identity.clone()),
            of(wrong_port.clone()),
            of(backwards.clone()),
            resource(wire::names::WORKLOAD, None),
        ] {
            let (now, refused) = after(&before, &registry, vec![unusable]);
            assert_eq!((refused, now.mtls()), (1, before.mtls()));
            assert_eq!(now.access, before.access);
            let (of_now, of_held) = (&now.workload, &before.workload);
            assert_eq!(of_now.is_some(), of_held.is_some());
        }
    }
}

/// A destination is no permission: the former way stays, except for plaintext to a workload that
/// has joined the mesh.
#[test]
fn refused_endpoint_list_stays_without_plaintext_to_meshed_endpoints() {
    let registry = Registry::default();
    let name = wire::names::endpoints("shop", "api", 80);
    let list = |endpoints: Vec<v1::Endpoint>| {
        let endpoints = v1::Endpoints {
            endpoints,
            ..v1::Endpoints::default()
        };
        resource(&name, Some(Content::Endpoints(endpoints)))
    };
    let former = vec![
        endpoint("10.0.0.1", ""),
        endpoint("10.0.0.2", ""),
        endpoint("10.0.0.3", WEB),
    ];
    let (before, _) = after(&Snapshot::default(), &registry, vec![list(former)]);
    let shown = |snapshot: &Snapshot| -> Vec<String> {
        let set = snapshot.endpoints_of(&name).unwrap();
        let addrs = set.endpoints.iter().map(|endpoint| endpoint.addr.ip());
        addrs.map(|ip| ip.to_string()).collect()
    };
    let unreadable = vec![endpoint("no address", ""), endpoint("10.0.0.2", "")];
    let (now, refused) = after(&before, &registry, vec![list(unreadable)]);
    assert_eq!(refused, 1);
    assert_eq!(shown(&now), ["10.0.0.1", "10.0.0.2", "10.0.0.3"]);
    assert_eq!(now.resource_versions(), before.resource_versions());

    for joined in [WEB, NO_IDENTITY] {
        let list = list(vec![
            endpoint("no address", ""),
            endpoint("10.0.0.2", joined),
        ]);
        let (now, refused) = after(&before, &registry, vec![list]);
        assert_eq!(refused, 1);
        assert_eq!(shown(&now), ["10.0.0.1", "10.0.0.3"], "{joined}");
        assert!(
            !now.resource_versions().contains_key(&name),
            "it is asked for again"
        );
        assert!(registry.was_meshed("10.0.0.2:80".parse().unwrap()));
    }
}

#[test]
fn refused_destination_stays_unless_plaintext_reaches_meshed_pod() {
    let addr: SocketAddr = "10.0.0.2:80".parse().unwrap();
    let name = wire::names::destination(addr.ip(), addr.port());
    let to = |target: Option<Target>| {
        let destination = v1::Destination { target };
        resource(&name, Some(Content::Destination(destination)))
    };
    let pod = |identity: &str| {
        Target::Pod(v1::PodTarget {
            endpoint: Some(endpoint("10.0.0.2", identity)),
            ..v1::PodTarget::default()
        })
    };
    let service = || Target::Service("service/shop/api:80".to_owned());
    let external = || Target::External(v1::External::default());
    for (former, refused, stays) in [
        (external(), Some(pod(NO_IDENTITY)), false),
        (pod(""), Some(pod(NO_IDENTITY)), false),
        (pod(WEB), Some(pod(NO_IDENTITY)), true),
        (service(), Some(pod(NO_IDENTITY)), true),
        (external(), None, true),
    ] {
        let registry = Registry::default();
        let case = format!("{former:?} then {refused:?}");
        let joined = refused.is_some();
        let first = vec![to(Some(former))];
        let (before, _) = after(&Snapshot::default(), &registry, first);
        let (now, nacks) = after(&before, &registry, vec![to(refused)]);
        assert_eq!(nacks, 1, "{case}");
        assert_eq!(now.destinations.contains_key(&addr), stays, "{case}");
        assert_eq!(now.resource_versions().contains_key(&name), stays, "{case}");
        assert_eq!(registry.was_meshed(addr), joined, "{case}");
    }
}

/// Of a caller that makes its first call so many seconds after they became ready.
#[tokio::test(start_paused = true)]
async fn endpoints_warm_up_since_ready_unless_all_just_started() {
    let name = wire::names::endpoints("shop", "api", 80);
    let snapshot_of = |ages: &[Option<i64>]| {
        let unix = lists::unix();
        let at = |(last, age): (usize, &Option<i64>)| v1::Endpoint {
            ready_since: age.map_or(0, |age| unix.checked_add_signed(-age).unwrap()),
            ..endpoint(&format!("10.0.0.{last}"), WEB)
        };
        let list = v1::Endpoints {
            endpoints: ages.iter().enumerate().map(at).collect(),
            ..v1::Endpoints::default()
        };
        let set = vec![resource(&name, Some(Content::Endpoints(list)))];
        after(&Snapshot::default(), &Registry::default(), set).0
    };
    let shares = |before: &Snapshot| -> Vec<f64> {
        let set = before.endpoints_of(&name).unwrap();
        let all = set
            .endpoints
            .iter()
            .map(|one| set.view(one, &Draw::DEFAULT));
        let shares = all.map(|shown| match shown.candidate {
            Candidate::Works { share, .. } => share,
            other => panic!("{other:?}"),
        });
        shares.collect()
    };
    // Clocks show whole seconds, and one may pass meanwhile.
    for (ages, least, most) in [
        ([Some(3600), Some(5)], 0.5, 0.7),
        ([Some(20), Some(5)], 0.5, 0.7),
        ([Some(3600), Some(-30)], 0.1, 0.1),
        ([Some(3600), None], 1.0, 1.0),
        ([Some(5), Some(5)], 1.0, 1.0),
        ([Some(5), Some(1)], 0.3, 0.5),
    ] {
        let found = shares(&snapshot_of(&ages));
        assert_eq!(found[0], 1.0, "{ages:?}");
        assert!((least..=most).contains(&found[1]), "{ages:?}: {found:?}");
    }
    let before = snapshot_of(&[Some(3600), Some(0)]);
    tokio::time::advance(Duration::from_secs(10)).await;
    assert_eq!(shares(&before), [1.0, 1.0]);
}

#[test]
fn a_refused_split_leaves_the_former_one() {
    let registry = Registry::default();
    let name = wire::names::service("shop", "api", 80);
    let service = |path: &str| {
        let split = v1::Split {
            origin: rule("s").origin,
            matches: Some(v1::HttpMatches {
                matches: vec![v1::HttpMatch {
                    path_regex: Some(path.to_owned()),
                    ..v1::HttpMatch::default()
                }],
            }),
            backends: Vec::new(),
        };
        let service = v1::Service {
            namespace: "shop".to_owned(),
            name: "api".to_owned(),
            port: 80,
            splits: vec![split],
            ..v1::Service::default()
        };
        resource(&name, Some(Content::Service(service)))
    };
    let (before, refused) = after(&Snapshot::default(), &registry, vec![service("/a")]);
    assert_eq!(refused, 0);
    let (now, refused) = after(&before, &registry, vec![service("/((")]);
    assert_eq!(refused, 1);
    assert!(Arc::ptr_eq(
        &now.services[name.as_str()],
        &before.services[name.as_str()]
    ));
}

/// Its name decides nothing: a rule is its content.
#[test]
fn rule_is_keyed_by_name_whatever_form_or_content() {
    let registry = Registry::default();
    for name in ["x".to_owned(), wire::names::rule("shop", "t")] {
        let set = vec![resource(&name, Some(Content::Rule(rule("t"))))];
        let (before, _) = after(&Snapshot::default(), &registry, set);
        assert_eq!(before.rules.len(), 1);
        let batch = v1::Batch {
            remove: vec![name.clone()],
            ..v1::Batch::default()
        };
        let (removed, _) = before.after(batch, &registry);
        assert!(removed.rules.is_empty(), "{name}");
        let wrong = Content::Workload(v1::Workload::default());
        let service = Content::Service(v1::Service {
            port: 80,
            ..v1::Service::default()
        });
        for (content, refusals) in [(Some(wrong), 1), (Some(service), 0), (None, 1)] {
            let (next, refused) = after(&before, &registry, vec![resource(&name, content)]);
            assert_eq!(refused, refusals, "{name}");
            assert!(
                next.rules.is_empty() && next.access.rules.is_empty(),
                "{name}"
            );
        }
    }
}

/// A controller sends a proxy whatever the proxy announces that it understands.
#[test]
fn whatever_this_version_says_that_it_understands_is_accepted() {
    let extended = Content::ExtendedRule(rule("t"));
    let rule = (wire::names::rule("shop", "t"), extended);
    let policy = (
        wire::names::policy("shop", "api", 80),
        Content::Policy(v1::Policy::default()),
    );
    let guard = (
        wire::names::GUARD.to_owned(),
        Content::Guard(v1::Guard::default()),
    );
    let telemetry = (
        wire::names::TELEMETRY.to_owned(),
        Content::Telemetry(v1::Telemetry::default()),
    );
    let routes = (
        wire::names::ROUTES.to_owned(),
        Content::Routes(v1::Routes::default()),
    );
    let position = (
        wire::names::PLACE.to_owned(),
        Content::Place(v1::Place {
            peers: 4,
            zone_peers: 1,
            ..v1::Place::default()
        }),
    );
    let revocations = Content::Revocations(v1::Revocations::default());
    let revocations = (wire::names::REVOCATIONS.to_owned(), revocations);
    let routed = services::tests::sample();
    let egress = egress::tests::sample();
    let mut samples = Vec::new();
    for known in Capability::OF_THIS_VERSION {
        let sample = match known {
            Capability::ExtendedRule => &rule,
            Capability::Telemetry => &telemetry,
            // On the stream, or fields of a resource. The last no other has.
            Capability::Asks | Capability::Trial | Capability::Faults => continue,
            Capability::Rotation | Capability::EgressGateways | Capability::Gateway => continue,
            Capability::Routes => &routes,
            Capability::Place => &position,
            Capability::ServiceRoutes => &routed,
            Capability::Egress => &egress,
            Capability::Revocations => &revocations,
        };
        samples.push((known.as_str(), sample));
    }
    for known in Part::IN_FORCE {
        let sample = match known.side() {
            Side::Caller => &policy,
            Side::Server => &guard,
        };
        samples.push((known.capability(), sample));
    }
    for (known, (name, content)) in samples {
        let of = vec![resource(name, Some(content.clone()))];
        let (_, refused) = after(&Snapshot::default(), &Registry::default(), of);
        assert_eq!(refused, 0, "{known}");
    }
}
