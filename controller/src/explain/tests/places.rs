//! Where a call goes by, and where it comes from: past the proxy, by another name, from
//! several nodes.

use super::*;

/// Pod `client` with these arguments of its traffic capture.
fn client(arguments: &[&str]) -> Value {
    let arguments = [&["capture"][..], arguments].concat();
    let pod = pod("client", "10.0.0.1", "web");
    set(pod, "/spec/initContainers/0/args", json!(arguments))
}

#[test]
fn call_that_the_callers_capture_leaves_out_has_no_identity_and_knows_no_split() {
    let asked = spec("Pod/client", "Service/api", "GET", "/items");
    for arguments in [
        &["--skip-outbound-ports=79-80"][..],
        &["--skip-outbound-cidrs", "10.96.0.0/16,fd00::/8"][..],
    ] {
        let cluster = read_only().with(client(arguments));
        let status = ask(&cluster, &asked);
        assert_eq!(
            (status.verdict, status.reason.as_str()),
            (Verdict::Refused, "no-identity"),
            "{arguments:?}: {status:?}"
        );
        assert!(texts(&status, "who")[0].contains("leaves this call out"));
        let fix = status.fix.clone().unwrap();
        assert!(fix.commands[0].contains("skip-outbound"), "{fix:?}");
        let split = cluster.with(split("s", "api", &[("api", 0), ("v2", 0)]));
        assert_eq!(ask(&split, &asked).reason, "no-identity", "{arguments:?}");
    }
    // What is captured is judged as ever.
    for arguments in [
        &["--skip-outbound-ports=81,8080"][..],
        &["--skip-outbound-cidrs=10.97.0.0/16"][..],
        &["--skip-inbound-ports=80"][..],
    ] {
        let status = ask(&read_only().with(client(arguments)), &asked);
        assert_eq!(status.verdict, Verdict::Allowed, "{arguments:?}");
    }
    // By a pod's own address it is that address and port that count.
    let own = spec("Pod/client", "Pod/api-1", "GET", "/items");
    for (arguments, verdict) in [
        (&["--skip-outbound-ports=8080"][..], Verdict::Refused),
        (&["--skip-outbound-cidrs=10.0.0.11"][..], Verdict::Refused),
        (&["--skip-outbound-ports=80"][..], Verdict::Allowed),
    ] {
        let status = ask(&read_only().with(client(arguments)), &own);
        assert_eq!(status.verdict, verdict, "{arguments:?}");
    }
}

fn alias(to: &str) -> Value {
    let alias = set(service("alias", "", &[("http", 80)]), "/spec", json!({}));
    let spec = json!({"type": "ExternalName", "externalName": to, "ports": [{"name": "http", "port": 80}]});
    set(alias, "/spec", spec)
}

#[test]
fn external_name_of_a_service_is_judged_as_that_service() {
    let asked = spec("Pod/client", "Service/alias", "DELETE", "/items");
    let with = |name: &str| ask(&read_only().with(alias(name)), &asked);
    for name in [
        "api.shop.svc.cluster.local",
        "api.shop.svc.cluster.local.",
        "API.shop.svc",
    ] {
        let status = with(name);
        assert_eq!(
            (status.verdict, status.reason.as_str()),
            (Verdict::Refused, "not-allowed"),
            "{name}"
        );
    }
    // Of what the cluster's names lead to nothing is promised that is not known.
    for name in [
        "nothing.shop.svc.cluster.local",
        "api-1.api.shop.svc.cluster.local",
        "10-0-0-11.shop.pod.cluster.local",
        "alias.shop.svc.cluster.local",
        "ledger.bank.svc.cluster.local",
    ] {
        assert_eq!(with(name).verdict, Verdict::Unknown, "{name}");
    }
    assert_eq!(with("api.example.com").verdict, Verdict::Allowed);
}

#[test]
fn callers_on_several_nodes_are_judged_each_from_its_own_where_that_counts() {
    let on =
        |name: &str, ip: &str, node: &str| set(pod(name, ip, "web"), "/spec/nodeName", json!(node));
    let cluster = shop().with(on("front-1", "10.0.0.61", "node-a")).with(on(
        "front-2",
        "10.0.0.62",
        "node-b",
    ));
    let asked = spec("Deployment/front", "Service/api", "GET", "/");
    assert_eq!(ask(&cluster, &asked).verdict, Verdict::Allowed);
    let local = set(
        service("api", "10.96.0.1", &[("http", 80)]),
        "/spec/internalTrafficPolicy",
        json!("Local"),
    );
    let status = ask(&cluster.clone().with(local.clone()), &asked);
    assert_eq!(status.verdict, Verdict::Mixed, "{status:?}");
    // A split's backend may be the one.
    let root = service("root", "10.96.0.9", &[("http", 80)]);
    let cluster = cluster
        .with(local)
        .with(root)
        .with(split("s", "root", &[("api", 1)]));
    let asked = spec("Deployment/front", "Service/root", "GET", "/");
    assert_eq!(ask(&cluster, &asked).verdict, Verdict::Mixed);
}
