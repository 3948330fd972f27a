//! Rules that name pods, and clients that may not learn which pods a caller has.

use super::*;

/// `api` lets in some pods of account `web`: those with label `first`, of which `client` is
/// one or not.
fn by_pod(client: bool) -> Cluster {
    let sources = json!([{"kind": "IdentityBinding", "name": "first"}]);
    let rules = json!([{"kind": "TCPRoute", "name": "ports"}]);
    let first = json!({"podLabelSelector": {"matchLabels": {"first": "yes"}}});
    let named = target("some", "api", &[], rules);
    let cluster = shop()
        .with(binding("first", first))
        .with(tcp_route("ports", &[8080]))
        .with(set(named, "/spec/sources", sources));
    if !client {
        return cluster;
    }
    let labels = json!({"first": "yes"});
    cluster.with(set(
        pod("client", "10.0.0.1", "web"),
        "/metadata/labels",
        labels,
    ))
}

fn as_asked(cluster: &Cluster) -> ExplanationStatus {
    let query = spec("ServiceAccount/web", "Service/api", "GET", "/");
    let model = cluster.compile_with(&Defaults::default()).0;
    let seen = |_: &BTreeSet<PodId>| SeenCallers::default();
    let explained = model.explain(&query, CallerView::AccountOnly, &owner, &seen);
    explained.unwrap().status
}

#[test]
fn pod_rule_verdict_is_unknown_without_pod_view() {
    let known = |client| {
        let query = spec("ServiceAccount/web", "Service/api", "GET", "/");
        explain(&by_pod(client), &query).verdict
    };
    // Control: it makes a difference.
    assert_eq!(
        [known(true), known(false)],
        [ExplanationVerdict::Allowed, ExplanationVerdict::Refused]
    );
    let status = as_asked(&by_pod(true));
    assert_eq!(status.verdict, ExplanationVerdict::Unknown, "{status:?}");
    assert!(status.reason.contains("IdentityBinding"), "{status:?}");
    assert_eq!(status.fix, None, "it would let more in than it takes");
    // Where the binding has no pods it matches none, whichever client sends the query.
    assert_eq!(
        as_asked(&by_pod(false)).verdict,
        ExplanationVerdict::Refused
    );
    // By the account alone it can be said.
    let closed = target(
        "other",
        "api",
        &["other"],
        json!([{"kind": "TCPRoute", "name": "ports"}]),
    );
    let by_account = shop().with(tcp_route("ports", &[8080])).with(closed);
    assert_eq!(as_asked(&by_account).verdict, ExplanationVerdict::Refused);
    let both = by_pod(true).with(target(
        "account",
        "api",
        &["web"],
        json!([{"kind": "TCPRoute", "name": "ports"}]),
    ));
    assert_eq!(as_asked(&both).verdict, ExplanationVerdict::Allowed);
}
