use serde_json::json;
use wire::v1::{self, resource::Content};

use super::{Published, must_not_wait};
use crate::fixture::*;

fn published(content: Content) -> Published {
    Published::new("x".to_owned(), content, Vec::new())
}

fn endpoints(ports: &[u32]) -> Published {
    let endpoint = |port: &u32| v1::Endpoint {
        port: *port,
        ..v1::Endpoint::default()
    };
    let endpoints = ports.iter().map(endpoint).collect();
    published(Content::Endpoints(v1::Endpoints { endpoints }))
}

fn workload(enforcement: v1::Enforcement) -> Published {
    let workload = v1::Workload {
        enforcement: enforcement.into(),
        ..v1::Workload::default()
    };
    published(Content::Workload(workload))
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
    assert!(!must_not_wait(None, Some(&rule)));
    assert!(!must_not_wait(
        Some(&workload(Enforce)),
        Some(&workload(Open))
    ));
    assert!(!must_not_wait(Some(&rule), Some(&rule)));
}

#[test]
fn a_version_changes_with_the_content_and_only_with_it() {
    let version = |weight| {
        let cluster = shop().with(split("s", "api", &[("api", weight)]));
        let resolved = cluster.resolve("client", &["10.96.0.1:80"]);
        resolved
            .published("service/shop/api:80")
            .resource
            .version
            .clone()
    };
    assert_eq!(version(1), version(1));
    assert_ne!(version(1), version(2));
}

#[test]
fn a_new_generation_without_new_content_keeps_the_version_and_moves_the_origin() {
    let at = |generation: i64| {
        let object = split("s", "api", &[("api", 1)]);
        let cluster = shop().with(set(object, "/metadata/generation", json!(generation)));
        let resolved = cluster.resolve("client", &["10.96.0.1:80"]);
        resolved.published("service/shop/api:80").clone()
    };
    let (old, new) = (at(1), at(2));
    assert_eq!(old.resource, new.resource);
    assert_eq!((old.origins[0].1, new.origins[0].1), (1, 2));
}

#[test]
fn a_pods_record_and_the_list_of_meshed_pods_say_who_carries_a_proxy() {
    let (model, _) = shop().with(plain_pod("plain", "10.0.0.8", "x")).compile();
    let record = |name| model.pod(&super::PodId::new("shop", name));
    let api = record("api-1").unwrap();
    assert_eq!(
        (&*api.uid, &*api.service_account, &*api.node),
        ("uid-api-1", "api", "node-a")
    );
    assert!(api.meshed && api.proxy_running);
    assert!(!record("plain").unwrap().meshed);
    assert!(record("ghost").is_none());
    let meshed: Vec<&str> = model.meshed_pods().map(|pod| &*pod.name).collect();
    assert_eq!(meshed, ["api-1", "api-2", "client"]);
}
