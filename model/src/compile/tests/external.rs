//! What pods may call outside the mesh: who is admitted, by which mode, and at which addresses.

mod services;

use std::collections::BTreeSet;

use policy::egress::{Egress, EgressMode, Roots};
use serde_json::{Value, json};
use wire::capability::Capabilities;

use super::{failures, report};
use crate::fixtures::{
    Resolved, annotate, apply, created, external_service, in_namespace, namespace, node, pod,
    read_authorities, resolve_host, resolve_newest, set, shop,
};
use crate::model::{Defaults, Model, PodId};
use crate::problem::{ConditionType, Problems, Reason};
use crate::world::collect::Collector;

/// The shop with these objects, and with these addresses of hosts.
fn compiled(objects: &[Value], names: &[(&str, &[&str])]) -> (Model, Problems) {
    compiled_with(&Defaults::default(), objects, names)
}

fn compiled_with(
    defaults: &Defaults,
    objects: &[Value],
    names: &[(&str, &[&str])],
) -> (Model, Problems) {
    let mut collector = Collector::default();
    for object in shop().objects().iter().chain(objects) {
        apply(&mut collector, object);
    }
    for (host, addresses) in names {
        resolve_host(&mut collector, host, addresses);
    }
    Model::compile(&collector.world(), defaults)
}

/// `pay.example` and what is below it, for calls in TLS.
fn pay() -> Value {
    let spec = json!({
        "hosts": ["pay.example", "*.pay.example"],
        "ports": [{"port": 443, "protocol": "TLS"}],
    });
    external_service("pay", spec)
}

/// What the proxy of a pod of namespace `shop` gets that subscribes to these names.
fn sent(model: &Model, pod: &str, names: &[&str]) -> Resolved {
    let names: BTreeSet<String> = names.iter().map(|name| (*name).to_owned()).collect();
    let capabilities = Capabilities::named(&Capabilities::of_everything());
    let set = model.resolve(&PodId::new("shop", pod), &names, &capabilities);
    Resolved(set.unwrap().resources)
}

/// What a pod may call; idle where it is sent nothing of it.
fn egress(model: &Model, pod: &str) -> Egress {
    let sent = sent(model, pod, &[]);
    if sent.0.contains_key("egress") {
        sent.egress()
    } else {
        Egress::default()
    }
}

fn objects(model: &Model, pod: &str) -> Vec<String> {
    let objects = egress(model, pod).objects.into_iter();
    objects.map(|object| object.origin.to_string()).collect()
}

fn with_sources(object: Value, sources: Value) -> Value {
    set(object, "/spec/sources", sources)
}

#[test]
fn object_admits_accounts_of_its_namespace_or_its_sources() {
    let elsewhere = in_namespace(pay(), "other");
    let (model, problems) = compiled(&[pay(), elsewhere.clone()], &[]);
    for pod in ["client", "api-1"] {
        assert_eq!(objects(&model, pod), ["ExternalService shop/pay"], "{pod}");
    }
    assert!(report(&problems, "ExternalService pay").accepted.status);

    let web = json!([{"kind": "ServiceAccount", "name": "web"}]);
    let (model, _) = compiled(&[with_sources(pay(), web)], &[]);
    assert_eq!(objects(&model, "client"), ["ExternalService shop/pay"]);
    assert_eq!(objects(&model, "api-1"), [""; 0]);
    assert_eq!(egress(&model, "api-1"), Egress::default());

    // Another namespace opens nothing for this one, but where the mesh itself is.
    let api = json!([{"kind": "ServiceAccount", "name": "api", "namespace": "shop"}]);
    let foreign = with_sources(elsewhere, api.clone());
    let of_mesh = with_sources(in_namespace(pay(), "weft-system"), api);
    let (model, problems) = compiled(&[foreign, of_mesh], &[]);
    assert_eq!(
        objects(&model, "api-1"),
        ["ExternalService weft-system/pay"]
    );
    assert_eq!(objects(&model, "client"), [""; 0]);
    let wrong = (Reason::Invalid, "spec.sources[0].namespace");
    assert_eq!(failures(&problems, ConditionType::Accepted), [wrong]);
}

#[test]
fn egress_mode_has_the_precedence_of_access() {
    let of = |defaults: &Defaults, namespaces: Option<&str>, pods: Option<&str>| {
        let mut objects = Vec::new();
        if let Some(mode) = namespaces {
            objects.push(annotate(namespace("shop"), "weft.dev/egress", mode));
        }
        let client = pod("client", "10.0.0.1", "web");
        objects.push(match pods {
            Some(mode) => annotate(client, "weft.dev/egress", mode),
            None => client,
        });
        let (model, _) = compiled_with(defaults, &objects, &[]);
        egress(&model, "client").mode
    };
    let plain = Defaults::default();
    assert_eq!(of(&plain, None, None), EgressMode::Allow);
    assert_eq!(of(&plain, Some("deny"), None), EgressMode::Deny);
    assert_eq!(of(&plain, Some("audit"), Some("deny")), EgressMode::Deny);
    assert_eq!(of(&plain, Some("deny"), Some("allow")), EgressMode::Deny);
    let closed = Defaults {
        egress: EgressMode::Deny,
        egress_pods_may_loosen: true,
        ..Defaults::default()
    };
    assert_eq!(of(&closed, None, None), EgressMode::Deny);
    assert_eq!(of(&closed, Some("audit"), None), EgressMode::Audit);
    assert_eq!(of(&closed, None, Some("allow")), EgressMode::Allow);
    for wrong in ["Deny", "open", ""] {
        assert_eq!(of(&plain, Some(wrong), None), EgressMode::Deny, "{wrong:?}");
        assert_eq!(of(&plain, None, Some(wrong)), EgressMode::Deny, "{wrong:?}");
    }
}

#[test]
fn wrong_egress_mode_is_reported_and_denies() {
    let wrong = annotate(namespace("shop"), "weft.dev/egress", "close");
    let (_, problems) = compiled(&[wrong], &[]);
    let mut found = problems.list.iter();
    let problem = found.find(|one| one.field.contains("weft.dev/egress"));
    let message = &problem.unwrap().message;
    assert!(message.contains("deny, audit, allow"), "{message}");
    assert!(message.contains("tightest"), "{message}");
}

#[test]
fn addresses_of_exact_hosts_are_sent_unasked() {
    let names: &[(&str, &[&str])] = &[
        ("pay.example", &["203.0.113.1", "2001:db8::1"]),
        ("api.pay.example", &["203.0.113.2"]),
        ("other.example", &["203.0.113.3"]),
    ];
    let (model, _) = compiled(&[pay()], names);
    let sent_alone = sent(&model, "client", &[]);
    assert_eq!(
        sent_alone.addresses("external/pay.example:443"),
        ["203.0.113.1:443", "2001:db8::1:443"]
    );
    let external = |sent: &Resolved| {
        let names = sent.names().into_iter();
        let external = names.filter(|name| name.starts_with("external/"));
        external.count()
    };
    assert_eq!(external(&sent_alone), 1);
    // What no object covers is no subscription: another host, another port, the name of none.
    let asked = [
        "external/api.pay.example:443",
        "external/api.pay.example:80",
        "external/other.example:443",
        "external/new.pay.example:443",
    ];
    let sent_both = sent(&model, "client", &asked);
    assert_eq!(sent_both.addresses(asked[0]), ["203.0.113.2:443"]);
    assert_eq!(external(&sent_both), 2);
    let client = PodId::new("shop", "client");
    let queried = asked.map(|name| model.queried_host(&client, name));
    assert_eq!(
        queried,
        [Some("api.pay.example"), None, None, Some("new.pay.example")]
    );
    assert_eq!(
        model.queried_host(&client, "destination/10.0.0.1:443"),
        None
    );
}

/// Answers that stand inside, from a server that wants callers to reach what is there.
#[test]
fn inner_answers_are_no_addresses_of_a_host() {
    let addresses = json!([{"type": "InternalIP", "address": "172.16.0.1"}]);
    let node = set(node("node-a", "zone-a"), "/status/addresses", addresses);
    let inner: [&str; 9] = [
        "10.0.0.11",
        "64:ff9b::10.0.0.11",
        "10.96.0.1",
        "172.16.0.1",
        "127.0.0.1",
        "169.254.169.254",
        "::1",
        "::ffff:203.0.113.1",
        "fe80::1",
    ];
    let (model, _) = compiled(&[pay(), node], &[("pay.example", &inner[..])]);
    let host = "external/pay.example:443";
    let nothing = sent(&model, "client", &[]);
    assert_eq!(nothing.addresses(host), [""; 0], "resolved, and to none");
    let (model, _) = compiled(&[pay()], &[]);
    assert!(!sent(&model, "client", &[]).0.contains_key(host));

    let tcp = json!({"hosts": ["db.example"], "ports": [{"port": 5432, "protocol": "TCP"}]});
    let mut mixed = inner.to_vec();
    mixed.push("203.0.113.1");
    let (model, _) = compiled(
        &[external_service("db", tcp)],
        &[("db.example", &mixed[..])],
    );
    let resolved = egress(&model, "client").objects.remove(0).resolved;
    // The address of a node that is not in this cluster.
    let outer: Vec<String> = resolved.iter().map(ToString::to_string).collect();
    assert_eq!(outer, ["172.16.0.1", "203.0.113.1"]);
}

#[test]
fn missing_authorities_believe_no_server() {
    let tls = json!({"serverName": "pay.example", "caRef": {"name": "ca"}});
    let port = json!({"port": 80, "protocol": "HTTP", "targetPort": 443, "tls": tls});
    let object = external_service("pay", json!({"hosts": ["pay.example"], "ports": [port]}));
    let of = |pem: Option<Option<&str>>| {
        let mut collector = Collector::default();
        for object in shop().with(object.clone()).objects() {
            apply(&mut collector, object);
        }
        if let Some(pem) = pem {
            read_authorities(&mut collector, "ca", pem);
        }
        let (model, problems) = Model::compile(&collector.world(), &Defaults::default());
        let port = egress(&model, "client").objects.remove(0).ports.remove(0);
        let resolved = report(&problems, "ExternalService pay")
            .resolved_refs
            .status;
        (port.tls.unwrap().roots.clone(), resolved)
    };
    let nothing = Roots::Pem("".into());
    assert_eq!(of(None), (nothing.clone(), false));
    assert_eq!(of(Some(None)), (nothing.clone(), false));
    assert_eq!(of(Some(Some("PEM"))), (Roots::Pem("PEM".into()), true));
    let long = "P".repeat(64 * 1024 + 1);
    assert_eq!(of(Some(Some(&long))), (nothing, false));
}

#[test]
fn oldest_objects_count_where_there_are_too_many() {
    let many: Vec<Value> = (0..514)
        .map(|n| {
            let spec = json!({
                "hosts": [format!("h{n}.example")],
                "ports": [{"port": 443, "protocol": "TLS"}],
            });
            let second = u8::from(n < 2);
            created(external_service(&format!("x{n:03}"), spec), second)
        })
        .collect();
    let (model, problems) = compiled(&many, &[]);
    let sent = objects(&model, "client");
    assert_eq!(sent.len(), 512);
    // The first two are the youngest.
    assert_eq!(sent[0], "ExternalService shop/x002");
    let condition = &report(&problems, "ExternalService x001").accepted;
    assert_eq!((condition.status, condition.reason), (true, "Conflicted"));
    let newest = policy::name::ObjectRef::new(policy::name::Kind::ExternalService, "shop", "x001");
    assert_eq!(model.protected_by(&newest).len(), 0);
}

#[test]
fn admitted_pods_need_object_and_acknowledge_it_by_egress() {
    let web = json!([{"kind": "ServiceAccount", "name": "web"}]);
    for (object, needed) in [
        (pay(), vec!["api-1", "api-2", "client"]),
        (with_sources(pay(), web), vec!["client"]),
    ] {
        let (model, _) = compiled(&[object], &[]);
        let this = policy::name::ObjectRef::new(policy::name::Kind::ExternalService, "shop", "pay");
        let pods: Vec<String> = model
            .protected_by(&this)
            .iter()
            .map(|pod| pod.name.to_string())
            .collect();
        assert_eq!(pods, needed);
        for pod in needed {
            let sent = resolve_newest(&model, pod, &[]);
            assert_eq!(sent.published("egress").origins, [(this.clone(), 1)]);
        }
    }
}

#[test]
fn older_proxy_gets_no_egress_and_is_left_out() {
    let (model, _) = compiled(&[pay()], &[("pay.example", &["203.0.113.1"])]);
    let client = PodId::new("shop", "client");
    let names = BTreeSet::from(["external/pay.example:443".to_owned()]);
    let set = model.resolve(&client, &names, &Capabilities::default());
    let set = set.unwrap();
    let mut sent = set.resources.keys();
    assert!(!sent.any(|name| name == "egress" || name.starts_with("external/")));
    let left_out: Vec<String> = set
        .left_out
        .iter()
        .map(|one| one.object.to_string())
        .collect();
    assert_eq!(left_out, ["ExternalService shop/pay"]);
}
