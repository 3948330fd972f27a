//! What policies cannot say, and how large they may be.

use super::*;

#[test]
fn unlabelled_and_mislabelled_pods_are_reported_and_untrusted() {
    let unlabelled = |name: &str, account: &str| {
        cluster::set(pod(name, account), "/metadata/labels", json!({"app": name}))
    };
    let case = |pod: Value| {
        Case::deny()
            .with(pod)
            .with(udp_route("udp", &ports(&[1])))
            .target(json!([account("client")]), json!([udp("udp")]))
    };
    let old_server = case(unlabelled("old", "server"));
    assert_eq!(old_server.lacks(), [LackReason::PodsNotLabelled]);
    let old_client = case(unlabelled("old", "client"));
    assert_eq!(old_client.lacks(), [LackReason::PodsNotLabelled]);
    assert!(!old_client.udp("old", 1) && old_client.udp("client", 1));

    let stolen = json!(account_hash("shop", "client"));
    let label = format!("/metadata/labels/{}", ACCOUNT.replace('/', "~1"));
    let pretender = case(cluster::set(pod("thief", "thief"), &label, stolen));
    assert_eq!(pretender.lacks(), [LackReason::FalseAccountLabel]);
    assert!(!pretender.udp("thief", 1));
}

#[test]
fn target_beyond_rule_limit_is_skipped_and_older_stay() {
    // As many as one target may have; sixteen of them are 16 too many.
    let sources: Vec<Value> = (0..256).map(|i| account(&format!("s{i}"))).collect();
    let target = |name: &str, second: u8, sources: Value| {
        let target = cluster::target(name, "server", &[], json!([udp("udp")]));
        cluster::created(cluster::set(target, "/spec/sources", sources), second)
    };
    let mut case = Case::deny()
        .with(udp_route("udp", &ports(&[1])))
        .with(target("t", 9, json!(sources)))
        .with(target("v", 10, json!([account("client")])));
    for i in 0..15 {
        case = case.with(target(&format!("u{i}"), 5, json!(sources)));
    }
    assert_eq!(case.lacks(), [LackReason::TooManyRules]);
    assert!(case.udp("client", 1), "a small one still fits");
    let size = serde_json::to_string(&case.plan().policies.values().next_back().unwrap()).unwrap();
    assert!(size.len() < 1_000_000, "{}", size.len());
}

#[test]
fn the_policy_for_an_account_is_exactly_this() {
    let case = Case::with_mode("auto")
        .with(udp_route("udp", &ports(&[8302, 8301])))
        .target(
            json!([account("client"), {"kind": "Group", "name": "system:authenticated"}]),
            json!([udp("udp")]),
        );
    let server = account_hash("shop", "server");
    let client = account_hash("shop", "client");
    let plan = case.plan();
    let key = ObjectKey::new("shop", &format!("weft-udp-{server}"));
    let wanted = json!({
        "podSelector": {"matchLabels": {"weft.dev/account": server}},
        "policyTypes": ["Ingress"],
        "ingress": [
            {"ports": [{"protocol": "TCP"}, {"protocol": "SCTP"}]},
            {
                "from": [
                    {
                        "namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": "shop"}},
                        "podSelector": {"matchLabels": {"weft.dev/account": client}},
                    },
                    {
                        "namespaceSelector": {},
                        "podSelector": {"matchExpressions": [
                            {"key": "weft.dev/account", "operator": "Exists"},
                        ]},
                    },
                ],
                "ports": [{"protocol": "UDP", "port": 8301}, {"protocol": "UDP", "port": 8302}],
            },
        ],
    });
    assert_eq!(serde_json::to_value(&plan.policies[&key]).unwrap(), wanted);
    assert_eq!(plan.policies.len(), 1);
}
