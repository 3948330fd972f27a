//! Modes of namespaces and pods.

use serde_json::{Value, json};
use wire::v1::{Enforcement, MtlsMode};

use crate::{fixtures::*, model::Defaults, problem::Reason};

fn modes(cluster: &Cluster, defaults: &Defaults) -> (Enforcement, MtlsMode) {
    let resolved = Resolved(resolve(&cluster.compile_with(defaults).0, "api-1", &[]));
    let workload = resolved.workload();
    (workload.enforcement(), workload.mtls())
}

fn annotated(namespace_mode: Option<&str>, pod_mode: Option<&str>) -> Cluster {
    let mut ns = namespace("shop");
    let mut api = pod("api-1", "10.0.0.11", "api");
    if let Some(mode) = namespace_mode {
        ns = annotate(ns, "weft.dev/access", mode);
    }
    if let Some(mode) = pod_mode {
        api = annotate(api, "weft.dev/access", mode);
    }
    shop().with(ns).with(api)
}

#[test]
fn pod_tightens_namespace_mode_and_loosens_only_if_allowed() {
    use Enforcement::{Audit, Enforce, Open};
    let strict = Defaults::default();
    let loose = Defaults {
        access_pods_may_loosen: true,
        ..Defaults::default()
    };
    for (namespace, pod, tight, loosened) in [
        (None, None, Open, Open),
        (Some("deny"), None, Enforce, Enforce),
        (Some("audit"), None, Audit, Audit),
        (None, Some("deny"), Enforce, Enforce),
        (Some("deny"), Some("open"), Enforce, Open),
        (Some("open"), Some("audit"), Audit, Audit),
    ] {
        let cluster = annotated(namespace, pod);
        assert_eq!(modes(&cluster, &strict).0, tight, "{namespace:?} {pod:?}");
        assert_eq!(modes(&cluster, &loose).0, loosened, "{namespace:?} {pod:?}");
    }
}

#[test]
fn mtls_is_resolved_in_the_same_way() {
    let strict = annotate(namespace("shop"), "weft.dev/mtls", "strict");
    let cluster = shop().with(strict);
    let defaults = Defaults::default();
    assert_eq!(modes(&shop(), &defaults).1, MtlsMode::Permissive);
    assert_eq!(modes(&cluster, &defaults).1, MtlsMode::Strict);
    let loose = annotate(
        pod("api-1", "10.0.0.11", "api"),
        "weft.dev/mtls",
        "permissive",
    );
    let cluster = cluster.with(loose);
    assert_eq!(modes(&cluster, &defaults).1, MtlsMode::Strict);
    let loosen = Defaults {
        mtls_pods_may_loosen: true,
        ..Defaults::default()
    };
    assert_eq!(modes(&cluster, &loosen).1, MtlsMode::Permissive);
}

/// The ports that take plaintext, and the fields with a problem.
fn permissive(of_namespace: &[(&str, &str)], of_pod: &[(&str, &str)], loosen: bool) -> String {
    let defaults = Defaults {
        mtls_pods_may_loosen: loosen,
        ..Defaults::default()
    };
    let all = |object: Value, written: &[(&str, &str)]| {
        let written = written.iter();
        written.fold(object, |object, (name, value)| {
            annotate(object, &format!("weft.dev/{name}"), value)
        })
    };
    let cluster = shop()
        .with(all(namespace("shop"), of_namespace))
        .with(all(pod("api-1", "10.0.0.11", "api"), of_pod));
    let (model, problems) = cluster.compile_with(&defaults);
    let workload = Resolved(resolve(&model, "api-1", &[])).workload();
    let ports = workload.permissive_ports.iter();
    let ports = ports.map(|range| format!("{}-{}", range.first, range.last));
    let warned = problems.list.iter().map(|problem| problem.field.clone());
    ports.chain(warned).collect::<Vec<_>>().join(" ")
}

#[test]
fn permissive_ports_loosen_only_where_the_mode_could() {
    let strict = ("mtls", "strict");
    let ports = |list| ("permissive-ports", list);
    let [one, some] = [ports("9090"), ports("9090-9099,9200,65535")];
    assert_eq!(
        permissive(&[strict, some], &[], false),
        "9090-9099 9200-9200 65535-65535"
    );
    assert_eq!(permissive(&[one], &[], false), "", "nothing is strict");
    // A pod loosens its namespace where it may.
    assert_eq!(permissive(&[strict], &[one], false), "");
    assert_eq!(permissive(&[strict], &[one], true), "9090-9090");
    // Its own annotation is not its namespace's to loosen, but its own.
    assert_eq!(permissive(&[strict, one], &[strict], false), "");
    assert_eq!(permissive(&[], &[strict, one], false), "9090-9090");
    let own = [strict, ports("9095,9300")];
    assert_eq!(permissive(&[strict, some], &own, false), "9095-9095");
}

#[test]
fn permissive_ports_that_cannot_be_read_count_as_absent() {
    const FIELD: &str = "metadata.annotations[weft.dev/permissive-ports]";
    let strict = ("mtls", "strict");
    for list in ["9090,x", "0", "9091-9090", "9090;9091"] {
        let list = ("permissive-ports", list);
        assert_eq!(permissive(&[strict, list], &[], false), FIELD, "{list:?}");
        assert_eq!(permissive(&[strict], &[list], true), FIELD, "{list:?}");
    }
}

#[test]
fn unreadable_mode_counts_as_strictest_and_is_reported() {
    let cluster = annotated(None, Some("dney"));
    assert_eq!(
        modes(&cluster, &Defaults::default()).0,
        Enforcement::Enforce
    );
    let (_, problems) = cluster.compile();
    assert_eq!(problems.list[0].reason, Reason::Invalid);
    assert_eq!(problems.list[0].object.to_string(), "Pod shop/api-1");
}

#[test]
fn unreadable_namespace_mode_is_reported_on_namespace() {
    for (name, tight) in [("access", "Deny"), ("mtls", "stict")] {
        let name = format!("weft.dev/{name}");
        let cluster = shop().with(annotate(namespace("shop"), &name, tight));
        let enforced = modes(&cluster, &Defaults::default());
        assert_ne!(enforced, modes(&shop(), &Defaults::default()));
        let (_, problems) = cluster.compile();
        let [problem] = problems.list.as_slice() else {
            panic!("{:?}", problems.list)
        };
        assert_eq!(problem.object.to_string(), "Namespace shop");
        assert_eq!(problem.field, format!("metadata.annotations[{name}]"));
    }
}

#[test]
fn auto_mode_protects_account_of_invalid_target_too() {
    let rules = json!([{"kind": "TCPRoute", "name": "all"}]);
    let udp = json!([{"kind": "UDPRoute", "name": "all"}]);
    let good = target("t", "api", &["web"], rules.clone());
    let without_sources = target("t", "api", &[], rules.clone());
    let without_rules = target("t", "api", &["web"], json!([]));
    let unreadable = set(good.clone(), "/spec/sources", json!("everybody"));
    let group = set(good.clone(), "/spec/destination/kind", json!("Group"));
    let kindless = set(unreadable.clone(), "/spec/destination/kind", json!(""));
    let nameless = set(group.clone(), "/spec/destination/name", json!(""));
    let udp_only = target("t", "api", &["web"], udp);
    let other = target("t", "web", &["api"], rules.clone());
    let elsewhere = in_namespace(good.clone(), "other");
    let foreign = set(
        elsewhere.clone(),
        "/spec/destination/namespace",
        json!("shop"),
    );
    use Enforcement::{Enforce, Open};
    for (object, expected, what) in [
        (good, Enforce, "a good one"),
        (without_sources, Enforce, "no sources"),
        (without_rules, Enforce, "no rules"),
        (unreadable, Enforce, "unreadable"),
        (group, Enforce, "a destination of a wrong kind"),
        (kindless, Enforce, "unreadable, and without a kind"),
        (nameless, Open, "without a name"),
        (udp_only, Open, "about UDP only"),
        (other, Open, "another account"),
        (elsewhere, Open, "another namespace"),
        (foreign, Open, "from another namespace"),
    ] {
        let cluster = shop().with(object);
        assert_eq!(modes(&cluster, &Defaults::default()).0, expected, "{what}");
    }
}

#[test]
fn open_workload_gets_no_rules_but_audited_does() {
    let rules = json!([{"kind": "TCPRoute", "name": "all"}]);
    let with = |mode| {
        let ns = annotate(namespace("shop"), "weft.dev/access", mode);
        let cluster = shop().with(ns).with(tcp_route("all", &[]));
        cluster.with(target("t", "api", &["web"], rules.clone()))
    };
    assert_eq!(with("open").resolve("api-1", &[]).names(), ["workload"]);
    assert_eq!(
        with("audit").resolve("api-1", &[]).names(),
        ["rule/shop/t", "workload"]
    );
    assert_eq!(with("deny").resolve("client", &[]).names(), ["workload"]);
}

#[test]
fn a_workload_says_who_and_where_it_is() {
    let workload = shop().resolve("api-1", &[]).workload();
    assert_eq!(workload.identity, "spiffe://cluster.local/ns/shop/sa/api");
    assert_eq!(
        (workload.zone.as_str(), workload.node.as_str()),
        ("zone-a", "node-a")
    );
    assert_eq!(workload.ips, ["10.0.0.11"]);
}
