//! Revocations become one resource for all proxies, and take pods out of endpoints.

use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use policy::name::{Kind, ObjectRef, SpiffeId};
use serde_json::{Value, json};
use wire::v1::revoked_subject::Subject;

use super::{failures, report};
use crate::{
    fixtures::{
        Cluster, created, endpoint, node, pod, resolve_newest, revocation, service_account, set,
        shop, slice,
    },
    model::{Defaults, Model, compiled::Compiled, revoked::RevocationContext},
    problem::{ConditionType, Reason},
    world::ObjectKey,
};

const API: &str = "endpoints/shop/api:80";
/// The moment at which fixtures are made.
const MADE: u64 = 1_767_225_600;

fn leak(subjects: Value) -> Value {
    let mut spec = json!({"reason": "test"});
    spec["subjects"] = subjects;
    revocation("leak", spec)
}

fn account(name: &str) -> Value {
    json!({"serviceAccount": {"namespace": "shop", "name": name}})
}

/// The subjects that the proxy of `client` gets.
fn sent(model: &Model) -> Vec<Subject> {
    let got = resolve_newest(model, "client", &[]);
    let all = got.revocations("revocations").revocations;
    let subjects = all.into_iter().flat_map(|one| one.subjects);
    subjects.filter_map(|one| one.subject).collect()
}

fn uids(model: &Model) -> Vec<String> {
    let subjects = sent(model).into_iter();
    let uids = subjects.filter_map(|subject| match subject {
        Subject::Pod(uid) => Some(uid),
        _ => None,
    });
    uids.collect()
}

fn id(account: &str) -> SpiffeId {
    SpiffeId::of("cluster.local", "shop", account).unwrap()
}

#[test]
fn revoked_account_serves_no_call_and_gets_no_certificate() {
    let cluster = shop();
    let (before, _) = cluster.compile();
    let got = resolve_newest(&before, "client", &["10.96.0.1:80"]);
    assert!(!got.names().contains(&"revocations"));
    assert_eq!(got.addresses(API).len(), 2);

    let (model, problems) = cluster.with(leak(json!([account("api")]))).compile();
    let got = resolve_newest(&model, "client", &["10.96.0.1:80"]);
    assert_eq!(got.addresses(API), Vec::<String>::new());
    let this = ObjectRef::new(Kind::Revocation, "", "leak");
    assert_eq!(got.published("revocations").origins, [(this.clone(), 1)]);
    assert_eq!(sent(&model).len(), 1);
    // Its own proxies are not waited for: no controller serves them.
    let waited: Vec<String> = model
        .protected_by(&this)
        .iter()
        .map(|pod| pod.name.to_string())
        .collect();
    assert_eq!(waited, ["client"]);

    let revocations = &model.index.revocations;
    let by = revocations.issuance(&id("api"), None, None).unwrap_err();
    assert_eq!(by.to_string(), "Revocation leak");
    assert_eq!(revocations.issuance(&id("web"), None, None), Ok(None));
    let accepted = &report(&problems, "Revocation leak").accepted;
    assert!(accepted.status);
    assert_eq!(accepted.reason, "PlaintextStillOpen");
}

// Claims: trust-12b
#[test]
fn older_proxy_without_revocations_is_named() {
    let (model, _) = shop().with(leak(json!([account("api")]))).compile();
    let old = wire::capability::Capabilities::default();
    let pod = ObjectKey::new("shop", "client");
    let set = model.resolve(&pod, &Default::default(), &old).unwrap();
    assert!(!set.resources.contains_key("revocations"));
    assert_eq!(set.left_out.len(), 1);
}

// Claims: trust-5a
#[test]
fn node_means_its_pods_now_later_and_before() {
    let subjects = json!([{"node": {"name": "node-b"}}]);
    let on_b = |name: &str, ip: &str| {
        let pod = pod(name, ip, "web");
        set(pod, "/spec/nodeName", json!("node-b"))
    };
    let kept = json!({"subjects": [{"subject": "node node-b", "podUids": ["uid-gone"]}]});
    let object = set(leak(subjects), "/status", kept);
    let cluster = shop().with(on_b("b-1", "10.0.0.21")).with(object);
    let (model, _) = cluster.compile();
    assert_eq!(uids(&model), ["uid-b-1", "uid-gone"]);
    let found = model
        .index
        .revocations
        .found(&ObjectRef::new(Kind::Revocation, "", "leak"));
    assert_eq!(found[0].uids.len(), 2, "both stay in the status");
    let (model, _) = cluster.with(on_b("b-2", "10.0.0.22")).compile();
    assert_eq!(uids(&model).len(), 3);
    // One that no watch has shown yet is known by its node alone.
    let revocations = &model.index.revocations;
    let issued = |node| revocations.issuance(&id("web"), Some("uid-new"), Some(node));
    assert!(issued("node-b").is_err());
    assert_eq!(issued("node-a"), Ok(None));
}

#[test]
fn pod_without_uid_is_the_first_one_seen() {
    let subjects = json!([{"pod": {"namespace": "shop", "name": "api-1"}}]);
    let (model, problems) = shop().with(leak(subjects.clone())).compile();
    assert_eq!(uids(&model), ["uid-api-1"]);
    assert!(failures(&problems, ConditionType::ResolvedRefs).is_empty());
    let got = resolve_newest(&model, "client", &["10.96.0.1:80"]);
    assert_eq!(got.addresses(API), ["10.0.0.12:8080"]);

    let kept = json!({"subjects": [{"subject": "pod shop/api-1", "podUids": ["uid-former"]}]});
    let (model, _) = shop().with(set(leak(subjects), "/status", kept)).compile();
    assert_eq!(
        uids(&model),
        ["uid-former"],
        "a later pod of the name goes on"
    );

    let nothing = json!([{"pod": {"namespace": "shop", "name": "ghost"}}]);
    let (_, problems) = shop().with(leak(nothing)).compile();
    let unresolved = failures(&problems, ConditionType::ResolvedRefs);
    let expected = (Reason::RefNotFound, "spec.subjects[0].pod.name");
    assert_eq!(unresolved, [expected]);
}

/// Where the controllers run on `node-a`, with an authority that signs now.
fn defaults(announced: &[&str]) -> Defaults {
    Defaults {
        revocation: Arc::new(RevocationContext {
            controller: Some(ObjectKey::new("shop", "controller")),
            signing: [[7; 16]].into(),
            announced: announced.iter().map(|uid| (*uid).into()).collect(),
        }),
        ..Defaults::default()
    }
}

// Claims: trust-5c
#[test]
fn what_the_mesh_lives_by_is_not_revoked() {
    let issuer = format!("sha256:{}", "07".repeat(16));
    let subjects = json!([
        {"serviceAccount": {"namespace": "shop", "name": "controller"}},
        {"pod": {"namespace": "shop", "name": "controller-0"}},
        {"node": {"name": "node-a"}},
        {"issuer": {"fingerprint": issuer}},
        {"certificate": {"serial": "5f3a90"}},
    ]);
    let cluster = shop()
        .with(pod("controller-0", "10.0.0.40", "controller"))
        .with(leak(subjects));
    let (model, problems) = cluster.compile_with(&defaults(&[]));
    assert_eq!(
        failures(&problems, ConditionType::Accepted),
        [
            (Reason::ControlPlane, "spec.subjects[0].serviceAccount"),
            (Reason::ControlPlane, "spec.subjects[1].pod"),
            (Reason::ControlPlane, "spec.subjects[2].node.name"),
            (Reason::IssuerInUse, "spec.subjects[3].issuer.fingerprint"),
        ]
    );
    // The last one is in force all the same.
    assert_eq!(sent(&model), [Subject::Serial(vec![0x5f, 0x3a, 0x90])]);
}

/// Before the authority is loaded, any issuer may be the one in use.
#[test]
fn no_issuer_is_revoked_while_signing_one_is_unknown() {
    let issuer = format!("sha256:{}", "08".repeat(16));
    let cluster = shop().with(leak(json!([{"issuer": {"fingerprint": issuer}}])));
    let (model, _) = cluster.compile();
    let got = resolve_newest(&model, "client", &[]);
    assert!(!got.names().contains(&"revocations"));
    let (model, _) = cluster.compile_with(&defaults(&[]));
    assert_eq!(sent(&model), [Subject::Issuer(vec![8; 16])]);
}

/// A controller that comes to a node lets in no pod that is refused there.
#[test]
fn revoked_node_stays_so_when_a_controller_comes() {
    let kept = json!({"subjects": [{"subject": "node node-a", "podUids": ["uid-gone"]}]});
    let object = set(leak(json!([{"node": {"name": "node-a"}}])), "/status", kept);
    let cluster = shop()
        .with(pod("controller-0", "10.0.0.40", "controller"))
        .with(object);
    let (model, problems) = cluster.compile_with(&defaults(&[]));
    assert!(failures(&problems, ConditionType::Accepted).is_empty());
    let revocations = &model.index.revocations;
    assert!(revocations.has_ended("uid-gone") && revocations.has_ended("uid-client"));
    assert!(!revocations.has_ended("uid-controller-0"));
    let issued = revocations.issuance(&id("web"), Some("uid-new"), Some("node-a"));
    assert!(issued.is_err());
}

/// Or the pods of a node, made one after the other, would lift what is in force.
#[test]
fn pods_of_nodes_displace_no_subject_that_is_named() {
    let mut nodes: Vec<Value> = (0..9)
        .map(|n| json!({"node": {"name": format!("node-{n}")}}))
        .collect();
    nodes.push(account("api"));
    let kept: Vec<Value> = (0..9)
        .map(|n| {
            let uids: Vec<String> = (0..512).map(|i| format!("uid-{n}-{i}")).collect();
            json!({"subject": format!("node node-{n}"), "podUids": uids})
        })
        .collect();
    let old = set(leak(json!(nodes)), "/status", json!({"subjects": kept}));
    let serial = json!({"reason": "test", "subjects": [{"certificate": {"serial": "5f3a90"}}]});
    let newer = created(revocation("newer", serial), 9);
    let (model, problems) = shop().with(old).with(newer).compile();
    assert!(failures(&problems, ConditionType::Accepted).is_empty());
    let sent = sent(&model);
    assert_eq!(sent.len(), 4096);
    assert!(sent.contains(&Subject::Serial(vec![0x5f, 0x3a, 0x90])));
    let is_account = |one: &Subject| matches!(one, Subject::ServiceAccount(_));
    assert!(sent.iter().any(is_account));
    let said = &report(&problems, "Revocation leak").accepted;
    assert!(said.message.contains("4096"), "{}", said.message);
    let revocations = &model.index.revocations;
    let issued = revocations.issuance(&id("web"), None, Some("node-8"));
    assert!(issued.is_err());
}

#[test]
fn announced_revocation_is_no_origin_and_dates_certificates() {
    let at = MADE + 60;
    let spec = json!({"reason": "test", "subjects": [account("api")],
        "issuedBefore": "2026-01-01T00:01:00Z"});
    let cluster = shop().with(revocation("leak", spec));
    for (announced, origins) in [(&["uid-leak"][..], 0), (&[][..], 1)] {
        let (model, _) = cluster.compile_with(&defaults(announced));
        let got = resolve_newest(&model, "client", &["10.96.0.1:80"]);
        assert_eq!(got.published("revocations").origins.len(), origins);
        let message = got.revocations("revocations");
        assert_eq!(message.revocations[0].announced, origins == 0);
        assert_eq!(message.revocations[0].issued_before, at * 1000);
        assert_eq!(got.addresses(API).len(), 2, "healthy pods serve on");
        let soonest = model.index.revocations.issuance(&id("api"), None, None);
        let at: SystemTime = UNIX_EPOCH + Duration::from_secs(at);
        assert_eq!(soonest, Ok(Some(at)));
    }
}

#[test]
fn time_far_ahead_revokes_nothing() {
    for (before, is_accepted) in [
        ("2026-01-01T00:05:00Z", true),
        ("2026-01-01T00:05:01Z", false),
    ] {
        let spec = json!({"reason": "test", "subjects": [account("api")], "issuedBefore": before});
        let (model, problems) = shop().with(revocation("leak", spec)).compile();
        let found = failures(&problems, ConditionType::Accepted);
        assert_eq!(found.is_empty(), is_accepted, "{found:?}");
        let got = resolve_newest(&model, "client", &[]);
        assert_eq!(got.names().contains(&"revocations"), is_accepted);
    }
}

#[test]
fn newest_beyond_the_bound_says_too_many() {
    let one = |name: &str, second: u8| {
        let subjects = json!([{"certificate": {"serial": "5f3a90"}}]);
        let spec = json!({"reason": "test", "subjects": subjects});
        created(revocation(name, spec), second)
    };
    let mut cluster = Cluster::default().with(one("newest", 9));
    for number in 0..256 {
        cluster = cluster.with(one(&format!("old-{number}"), 3));
    }
    let (_, problems) = cluster.compile();
    assert_eq!(
        failures(&problems, ConditionType::Accepted),
        [(Reason::TooMany, "")]
    );
    assert!(!report(&problems, "Revocation newest").accepted.status);
}

/// Pods come and go while a Revocation of their account and node is in force.
#[test]
fn revocation_compiled_step_by_step_equals_the_whole() {
    let subjects = json!([account("api"), {"node": {"name": "node-b"}}]);
    let base = shop()
        .with(service_account("api"))
        .with(node("node-c", "zone-a"))
        .with(leak(subjects));
    let on_b = set(
        pod("b-1", "10.0.0.21", "web"),
        "/spec/nodeName",
        json!("node-b"),
    );
    let steps = [
        base.clone().with(pod("api-3", "10.0.0.13", "api")),
        base.clone().with(on_b),
        base.clone().with(slice(
            "api-y",
            "api",
            &[("http", 8080)],
            &[endpoint("client", "10.0.0.1")],
        )),
        base.clone(),
    ];
    let world = Arc::new(base.world());
    let (model, problems) = Model::compile(&world, &Defaults::default());
    let mut compiled = Compiled::new(world, model, problems);
    for (step, cluster) in steps.into_iter().enumerate() {
        let world = Arc::new(cluster.world());
        compiled = compiled.after(world, &Defaults::default());
        let (whole, problems) = cluster.compile();
        assert_eq!(*compiled.problems, problems, "step {step}");
        let of = |model: &Model| {
            let got = resolve_newest(model, "client", &["10.96.0.1:80"]);
            (got.revocations("revocations"), got.addresses(API))
        };
        assert_eq!(of(&compiled.model), of(&whole), "step {step}");
    }
}
