//! What a Model shares with the one before.

use serde_json::json;

use crate::fixtures::*;

#[test]
fn resource_version_changes_exactly_with_content() {
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
fn unchanged_content_keeps_version_and_moves_origin_generation() {
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
fn pod_record_and_meshed_list_agree_on_proxies() {
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
