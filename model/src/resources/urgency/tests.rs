//! Which changes must not wait.

use super::*;

fn published(content: Content) -> EncodedResource {
    EncodedResource::new("x".to_owned(), content, Vec::new())
}

fn endpoints(ports: &[u32]) -> EncodedResource {
    let endpoint = |port: &u32| v1::Endpoint {
        port: *port,
        ..v1::Endpoint::default()
    };
    let endpoints = ports.iter().map(endpoint).collect();
    published(Content::Endpoints(v1::Endpoints {
        endpoints,
        ..v1::Endpoints::default()
    }))
}

fn workload(enforcement: v1::Enforcement) -> EncodedResource {
    let workload = v1::Workload {
        enforcement: enforcement.into(),
        ..v1::Workload::default()
    };
    published(Content::Workload(workload))
}

#[test]
fn no_change_of_revocations_waits() {
    let revocations = |announced: bool| {
        let one = v1::Revocation {
            announced,
            ..v1::Revocation::default()
        };
        published(Content::Revocations(v1::Revocations {
            revocations: vec![one],
        }))
    };
    let (announced, in_force) = (revocations(true), revocations(false));
    assert!(must_not_wait(None, Some(&announced)));
    assert!(must_not_wait(Some(&announced), Some(&in_force)));
    assert!(must_not_wait(Some(&in_force), None));
    assert!(!must_not_wait(Some(&in_force), Some(&in_force)));
}

#[test]
fn what_takes_something_away_must_not_wait() {
    use v1::Enforcement::{Enforce, Open};
    let rule = published(Content::Rule(v1::Rule::default()));
    assert!(must_not_wait(
        Some(&endpoints(&[1, 2])),
        Some(&endpoints(&[2]))
    ));
    assert!(must_not_wait(Some(&endpoints(&[1])), None));
    assert!(must_not_wait(Some(&rule), None));
    assert!(must_not_wait(
        Some(&workload(Open)),
        Some(&workload(Enforce))
    ));
    assert!(!must_not_wait(
        Some(&endpoints(&[1])),
        Some(&endpoints(&[1, 2]))
    ));
    let (known, mut later) = (endpoints(&[1, 2]), endpoints(&[1, 2]));
    if let Some(Content::Endpoints(list)) = &mut later.resource.content {
        list.endpoints[0].ready_since = 7;
    }
    assert!(!must_not_wait(Some(&known), Some(&later)));
    assert!(!must_not_wait(None, Some(&rule)));
    assert!(!must_not_wait(
        Some(&workload(Enforce)),
        Some(&workload(Open))
    ));
    assert!(!must_not_wait(Some(&rule), Some(&rule)));
}

#[test]
fn port_closing_to_plaintext_is_urgent() {
    let at = |mtls: v1::MtlsMode, ports: &[u32]| {
        let range = |port: &u32| v1::PortRange {
            first: *port,
            last: *port,
        };
        published(Content::Workload(v1::Workload {
            mtls: mtls.into(),
            permissive_ports: ports.iter().map(range).collect(),
            ..v1::Workload::default()
        }))
    };
    use v1::MtlsMode::{Permissive, Strict};
    let both = at(Strict, &[9090, 9091]);
    assert!(must_not_wait(Some(&both), Some(&at(Strict, &[9091]))));
    assert!(must_not_wait(
        Some(&at(Permissive, &[])),
        Some(&at(Strict, &[9090]))
    ));
    assert!(!must_not_wait(Some(&at(Strict, &[9091])), Some(&both)));
    assert!(!must_not_wait(Some(&both), Some(&at(Permissive, &[]))));
}

#[test]
fn withdrawn_right_to_harm_calls_is_urgent() {
    let limited = |fault_limit: u32| {
        published(Content::Workload(v1::Workload {
            fault_limit,
            ..v1::Workload::default()
        }))
    };
    assert!(must_not_wait(Some(&limited(50_000)), Some(&limited(0))));
    assert!(!must_not_wait(Some(&limited(0)), Some(&limited(50_000))));
}

#[test]
fn pod_that_leaves_its_address_must_not_wait() {
    let at = |uid: &str| {
        let endpoint = v1::Endpoint {
            pod_uid: uid.to_owned(),
            ..v1::Endpoint::default()
        };
        let target = v1::destination::Target::Pod(v1::PodTarget {
            endpoint: Some(endpoint),
            ..v1::PodTarget::default()
        });
        published(Content::Destination(v1::Destination {
            target: Some(target),
        }))
    };
    let external = published(Content::Destination(v1::Destination {
        target: Some(v1::destination::Target::External(v1::External::default())),
    }));
    assert!(must_not_wait(Some(&at("a")), Some(&at("b"))));
    assert!(must_not_wait(Some(&at("a")), Some(&external)));
    assert!(!must_not_wait(Some(&at("a")), Some(&at("a"))));
    assert!(!must_not_wait(Some(&external), Some(&at("a"))));
}

#[test]
fn falling_weight_of_candidate_is_urgent() {
    let at = |backend: &str, weight| {
        let backends = vec![v1::Backend {
            service: backend.to_owned(),
            weight,
            ..v1::Backend::default()
        }];
        let split = v1::Split {
            backends,
            ..v1::Split::default()
        };
        published(Content::Service(v1::Service {
            splits: vec![split],
            ..v1::Service::default()
        }))
    };
    let candidate = |weight| at("web@candidate", weight);
    assert!(must_not_wait(Some(&candidate(20)), Some(&candidate(0))));
    let without = published(Content::Service(v1::Service::default()));
    assert!(must_not_wait(Some(&candidate(20)), Some(&without)));
    assert!(!must_not_wait(Some(&candidate(5)), Some(&candidate(20))));
    let other = |weight| at("web-v2", weight);
    assert!(!must_not_wait(Some(&other(20)), Some(&other(0))));
}

#[test]
fn end_of_a_way_out_is_urgent() {
    use v1::egress::Mode::{Allow, Audit, Deny};
    let object = |name: &str| v1::ExternalObject {
        hosts: vec![name.to_owned()],
        ..v1::ExternalObject::default()
    };
    let egress = |mode: v1::egress::Mode, objects: &[&str]| {
        published(Content::Egress(v1::Egress {
            mode: mode.into(),
            objects: objects.iter().map(|name| object(name)).collect(),
        }))
    };
    let urgent = |old: &EncodedResource, new: &EncodedResource| must_not_wait(Some(old), Some(new));
    assert!(urgent(&egress(Allow, &[]), &egress(Deny, &[])));
    assert!(urgent(&egress(Audit, &["a", "b"]), &egress(Audit, &["b"])));
    assert!(!urgent(&egress(Deny, &["a"]), &egress(Allow, &["a"])));
    assert!(!urgent(&egress(Deny, &["a"]), &egress(Deny, &["a", "b"])));
    assert!(must_not_wait(None, Some(&egress(Deny, &["a"]))));
    assert!(!must_not_wait(None, Some(&egress(Allow, &["a"]))));

    let to = |host: &str| {
        published(Content::Endpoints(v1::Endpoints {
            external: Some(v1::ExternalTarget {
                host: host.to_owned(),
                ..v1::ExternalTarget::default()
            }),
            ..v1::Endpoints::default()
        }))
    };
    assert!(urgent(&to("pay.example"), &to("api.example")));
    assert!(!urgent(&to("pay.example"), &to("pay.example")));
}

#[test]
fn gateway_that_loses_something_must_not_wait() {
    let route = |name: &str| v1::RouteRule {
        origin: Some(v1::ObjectRef {
            kind: "HTTPRoute".to_owned(),
            namespace: "shop".to_owned(),
            name: name.to_owned(),
        }),
        ..v1::RouteRule::default()
    };
    let listener = |name: &str, certificates: &[&str], routes: &[&str]| v1::GatewayListener {
        name: name.to_owned(),
        certificates: certificates.iter().map(|one| (*one).to_owned()).collect(),
        routes: vec![v1::GatewayRoutes {
            rules: routes.iter().map(|name| route(name)).collect(),
            ..v1::GatewayRoutes::default()
        }],
        ..v1::GatewayListener::default()
    };
    let gateway = |listeners: &[v1::GatewayListener]| {
        published(Content::Gateway(v1::Gateway {
            listeners: listeners.to_vec(),
            ..v1::Gateway::default()
        }))
    };
    let full = listener("a", &["certificate/a/b"], &["one", "two"]);
    let more = listener(
        "a",
        &["certificate/a/b", "certificate/a/c"],
        &["two", "one", "three"],
    );
    let mut moved = full.clone();
    moved.hostname = "a.example.com".to_owned();
    let old = gateway(std::slice::from_ref(&full));
    for (now, urgent) in [
        (vec![full.clone()], false),
        (vec![listener("b", &[], &[]), more], false),
        (Vec::new(), true),
        (vec![listener("a", &[], &["one", "two"])], true),
        (vec![listener("a", &["certificate/a/b"], &["one"])], true),
        (vec![moved], true),
    ] {
        assert_eq!(
            must_not_wait(Some(&old), Some(&gateway(&now))),
            urgent,
            "{now:?}"
        );
    }
    assert!(must_not_wait(Some(&old), None));
    assert!(!must_not_wait(None, Some(&old)));
}
