//! Certificates of listeners: which Secrets are read, and what keeps one from being served.

use std::collections::BTreeMap;

use super::*;
use crate::model::compiled::Compiled;

fn https(references: Value) -> Cluster {
    let mut https = listener("https", 443, "HTTPS", "");
    https["tls"]["certificateRefs"] = references;
    cluster(json!([https]))
}

fn certificates(model: &Model) -> BTreeMap<ObjectKey, Arc<str>> {
    let capabilities = Capabilities::named(&Capabilities::of_gateways());
    let pod = PodId::new("shop", "edge-1");
    let set = model.resolve(&pod, &BTreeSet::new(), &capabilities);
    set.unwrap().certificates
}

/// Status and reason of `ResolvedRefs`, and whether the listener is served.
fn resolved(problems: &Problems) -> (bool, &'static str, bool) {
    let said = said(problems, "https");
    assert!(said.accepted.status, "{said:?}");
    (
        said.resolved_refs.status,
        said.resolved_refs.reason,
        said.is_served,
    )
}

#[test]
fn readable_certificate_is_named_and_its_key_is_nowhere() {
    let cluster = https(json!([{"name": "edge"}]));
    let (model, problems) = compile_with(&cluster, &[(("shop", "edge"), Some("f1"))]);
    assert_eq!(resolved(&problems), (true, "ResolvedRefs", true));
    let listener = served_listener(&model, "https");
    let names = listener.certificates.iter().map(|name| &**name);
    assert_eq!(names.collect::<Vec<&str>>(), ["certificate/shop/edge"]);
    let expected = BTreeMap::from([(ObjectKey::new("shop", "edge"), "f1".into())]);
    assert_eq!(certificates(&model), expected);
    assert!(
        !sent(&model, "edge-1")
            .0
            .contains_key("certificate/shop/edge")
    );
}

#[test]
fn certificate_that_cannot_be_served_is_an_invalid_reference() {
    let own = json!([{"name": "edge"}]);
    for (references, read) in [
        (own.clone(), None),
        (own.clone(), Some((("shop", "edge"), None))),
        (json!([{"name": "edge", "kind": "WrongKind"}]), None),
        (
            json!([{"name": "edge", "group": "wrong.group.company.io"}]),
            None,
        ),
    ] {
        let read: Vec<_> = read.into_iter().collect();
        let (model, problems) = compile_with(&https(references), &read);
        assert_eq!(resolved(&problems), (false, "InvalidCertificateRef", false));
        // Handshakes are refused.
        assert!(served_listener(&model, "https").certificates.is_empty());
        assert!(certificates(&model).is_empty());
    }
    let both = json!([{"name": "gone"}, {"name": "edge"}]);
    let (model, problems) = compile_with(&https(both), &[(("shop", "edge"), Some("f1"))]);
    assert_eq!(resolved(&problems), (false, "InvalidCertificateRef", true));
    assert_eq!(certificates(&model).len(), 1);
}

#[test]
fn certificate_of_another_namespace_needs_a_grant() {
    let theirs = json!([{"name": "edge", "namespace": "keys"}]);
    let read = [(("keys", "edge"), Some("f1"))];
    let cluster = https(theirs).with(namespace("keys"));
    let (model, problems) = compile_with(&cluster, &read);
    assert_eq!(resolved(&problems), (false, "RefNotPermitted", false));
    assert!(certificates(&model).is_empty());
    let shop = BTreeSet::from(["shop".to_owned()]);
    assert!(cluster.world().listener_secrets(&shop).is_empty());
    // Routes and other kinds are something else.
    let mut other = certificate_grant("keys");
    other["spec"]["from"][0]["kind"] = json!("HTTPRoute");
    let (_, problems) = compile_with(&cluster.clone().with(other), &read);
    assert_eq!(resolved(&problems), (false, "RefNotPermitted", false));

    let granted = cluster.with(certificate_grant("keys"));
    let (model, problems) = compile_with(&granted, &read);
    assert_eq!(resolved(&problems), (true, "ResolvedRefs", true));
    assert_eq!(certificates(&model).len(), 1);
    let secrets = granted.world().listener_secrets(&shop);
    assert_eq!(secrets, BTreeSet::from([ObjectKey::new("keys", "edge")]));
    let elsewhere = BTreeSet::from(["other".to_owned()]);
    assert!(granted.world().listener_secrets(&elsewhere).is_empty());
}

/// Else a proxy would keep the old one: no resource differs.
#[test]
fn another_certificate_concerns_the_gateways_pods_alone() {
    let cluster = https(json!([{"name": "edge"}]));
    let mut collector = Collector::default();
    for object in cluster.objects() {
        apply(&mut collector, object);
    }
    let world = |collector: &mut Collector, fingerprint| {
        read_certificate(collector, ("shop", "edge"), fingerprint);
        Arc::new(collector.world())
    };
    let first = world(&mut collector, Some("f1"));
    let (model, problems) = Model::compile(&first, &with_gateways());
    let before = Compiled::new(first, model, problems);
    let nothing = BTreeSet::<String>::new();
    let interest = |pod: &str| before.model.interest(&PodId::new("shop", pod), &nothing);
    let (edge, client) = (interest("edge-1"), interest("client"));
    for fingerprint in [Some("f2"), None] {
        let next = world(&mut collector, fingerprint);
        let after = before.after(next, &with_gateways());
        assert!(after.concerns(before.number(), &edge), "{fingerprint:?}");
        assert!(!after.concerns(before.number(), &client), "{fingerprint:?}");
        let known = certificates(&after.model).into_values().next();
        assert_eq!(known.as_deref(), fingerprint);
    }
}
