//! Faults that are planted in a healthy mesh, a row for each check.

use super::*;

type Plant = fn(&FakeApi, &mut Webhooks);

/// Faults, each with the check that finds it. Some are seen by a second one, too.
const FAULTS: &[(&str, &[&str], Plant)] = &[
    ("kubernetes-version", &[], |api, _| {
        api.put(
            "/version",
            json!({"major": "1", "minor": "32+", "gitVersion": "v1.32.9"}),
        )
    }),
    ("clocks", &[], |api, webhooks| {
        // Ours is ahead, and what the cluster's clocks wrote is new all the same.
        webhooks.clock = -600;
        api.put(LEASE, lease(-600));
    }),
    ("controller", &[], |api, _| {
        api.remove(&format!("{WEFT}/weft-controller"))
    }),
    ("injector", &[], |api, _| {
        let mut injector = deployment("weft-injector", 2);
        injector["status"]["readyReplicas"] = json!(0);
        api.put(&format!("{WEFT}/weft-injector"), injector);
    }),
    ("node-agents", &[], |api, _| {
        put_by_node(api, 3, 2);
    }),
    ("single-replicas", &[], |api, _| {
        api.put(
            &format!("{WEFT}/weft-injector"),
            deployment("weft-injector", 1),
        )
    }),
    ("versions", &[], |api, _| {
        let mut injector = deployment("weft-injector", 2);
        injector["metadata"]["labels"]["app.kubernetes.io/version"] = json!("0.0.1");
        api.put(&format!("{WEFT}/weft-injector"), injector);
    }),
    ("lease", &[], |api, _| {
        api.put(
            LEASE,
            json!({"spec": {"holderIdentity": "one", "renewTime": "2026-01-01T00:00:00.000000Z"}}),
        )
    }),
    ("certificate-authority", &[], |api, _| {
        let pem = root(2020);
        for namespace in ["shop", "a", "b"] {
            let map = json!({"metadata": {"name": "weft-trust-bundle", "namespace": namespace}, "data": {"ca.crt": pem}});
            api.put(&BUNDLE.replace("shop", namespace), map);
        }
    }),
    ("issuer", &[], |api, _| {
        api.put(SECRET, json!({"data": {"issuer.crt": secret(&root(2020))}}))
    }),
    ("rotation", &[], |api, _| {
        let rotation = json!({"id": "audit", "phaseSince": "2026-01-01T00:00:00Z"});
        let status = json!({"phase": "Activating", "rotation": rotation});
        api.put(
            AUTHORITY,
            json!({"metadata": {"name": "weft"}, "status": status}),
        );
    }),
    ("issuer-source", &[], |api, _| {
        let usable = json!({"type": "Usable", "status": "False", "reason": "IssuerRejected"});
        let status = json!({"phase": "Steady", "conditions": [usable]});
        api.put(
            AUTHORITY,
            json!({"metadata": {"name": "weft"}, "status": status}),
        );
    }),
    ("revocations", &[], |api, _| {
        let programmed = json!({"type": "Programmed", "status": "False", "reason": "ProxyTooOld"});
        api.put(
            "/apis/weft.dev/v1alpha1/revocations/leak",
            json!({"metadata": {"name": "leak", "creationTimestamp": "2026-01-01T00:00:00Z"},
                "status": {"conditions": [programmed]}}),
        );
    }),
    ("trust-bundles", &[], |api, _| {
        let map = json!({"metadata": {"name": "weft-trust-bundle", "namespace": "shop"}, "data": {"ca.crt": root(2999)}});
        api.put(BUNDLE, map);
    }),
    ("definitions", &[], |api, _| {
        let (path, definition) = definition(crds::smi::SmiKind::TcpRoute, false);
        api.put(&path, definition);
    }),
    ("webhooks", &[], |api, _| api.remove(VALIDATING)),
    ("ca-bundles", &[], |api, _| {
        api.put(
            MUTATING,
            json!({"webhooks": [{"name": "a", "clientConfig": {}}]}),
        )
    }),
    ("injection", &[], |_, webhooks| webhooks.injects = false),
    ("validation", &[], |_, webhooks| webhooks.validates = false),
    ("api-services", &[], |api, _| {
        put_api_service(api, API_SERVICES[0], "False")
    }),
    ("left-over", &["controller", "injector"], |api, _| {
        for name in ["weft-controller", "weft-injector"] {
            api.remove(&format!("{WEFT}/{name}"));
        }
    }),
    ("pods-without-proxy", &[], |api, _| {
        let mut pod = pod();
        pod["spec"] = json!({});
        api.put(POD, pod);
    }),
    // Where no pod with a proxy runs.
    ("admission", &["trust-bundles"], |api, _| {
        let metadata = json!({"name": "bank", "labels": {"weft.dev/inject": "enabled"}});
        api.put("/api/v1/namespaces/bank", json!({"metadata": metadata}));
        let quota = json!({"metadata": {"name": "q", "namespace": "bank"},
            "spec": {"hard": {"limits.cpu": "4"}}});
        api.put("/api/v1/namespaces/bank/resourcequotas/q", quota);
    }),
    ("old-proxies", &["versions"], |api, _| {
        let mut controller = deployment("weft-controller", 2);
        controller["metadata"]["labels"]["app.kubernetes.io/version"] = json!("0.4.0");
        api.put(&format!("{WEFT}/weft-controller"), controller);
    }),
    ("connected", &[], |api, _| {
        plant_proxy(api, "connected", json!(false))
    }),
    ("acknowledged", &[], |api, _| {
        plant_proxy(api, "acknowledged", json!(3))
    }),
    ("refusals", &[], |api, _| {
        plant_proxy(api, "nacks", json!([{"object": "x", "reason": "y"}]))
    }),
    ("certificates", &[], |api, _| {
        plant_proxy(
            api,
            "certificate",
            json!({"notAfter": "2026-01-01T00:00:00Z"}),
        )
    }),
    ("proxy-clocks", &[], |api, _| {
        plant_proxy(api, "clockAheadMs", json!(-6_000))
    }),
    ("release-gates", &[], |api, _| {
        api.put(POD, releases::gated_for_long())
    }),
    ("faults-running", &[], |api, _| {
        let path = "/apis/weft.dev/v1alpha1/namespaces/shop/faultexperiments/slow";
        api.put(
            path,
            json!({"metadata": {"name": "slow", "namespace": "shop"},
                "spec": {"targetRef": {"kind": "Service", "name": "payments"}, "share": "10%"},
                "status": {"phase": "Running", "run": {"endsAt": "2099-01-01T00:00:00Z"}}}),
        );
    }),
    ("egress-walls", &[], |api, _| {
        let mut pod = pod();
        pod["metadata"]["annotations"]["weft.dev/egress"] = json!("deny");
        pod["metadata"]["annotations"]["weft.dev/skip-outbound-ports"] = json!("5432");
        api.put(POD, pod);
    }),
    ("accepted", &[], |api, _| {
        api.put(SPLIT, split("Accepted", "False"))
    }),
    ("resolved", &[], |api, _| {
        api.put(SPLIT, split("ResolvedRefs", "False"))
    }),
    ("gateway-routes", &[], |api, _| {
        let parent = json!({"group": "", "kind": "Service", "name": "cart"});
        let refused = json!([{"type": "Accepted", "status": "False", "reason": "Conflicted"}]);
        let entry = json!({
            "controllerName": "weft.dev/mesh", "parentRef": parent, "conditions": refused,
        });
        let route = json!({
            "apiVersion": "gateway.networking.k8s.io/v1", "kind": "HTTPRoute",
            "metadata": {"name": "web", "namespace": "shop",
                "creationTimestamp": "2026-01-01T00:00:00Z"},
            "spec": {"parentRefs": [parent]},
            "status": {"parents": [entry]},
        });
        api.put(
            "/apis/gateway.networking.k8s.io/v1/namespaces/shop/httproutes/web",
            route,
        )
    }),
    ("gateways", &[], |api, _| {
        let mut on = controller(true, true);
        let env = on.pointer_mut("/spec/template/spec/containers/0/env");
        let env = env.and_then(Value::as_array_mut).unwrap();
        env.push(json!({"name": "WEFT_GATEWAY_NAMESPACES", "value": "shop"}));
        api.put(&format!("{WEFT}/weft-controller"), on);
        let class = json!({"metadata": {"name": "weft"},
            "spec": {"controllerName": "weft.dev/gateway"}});
        api.put(
            "/apis/gateway.networking.k8s.io/v1/gatewayclasses/weft",
            class,
        );
        let refused = json!([
            {"type": "Accepted", "status": "True", "reason": "Accepted"},
            {"type": "Programmed", "status": "False", "reason": "NameTaken"},
        ]);
        let gateway = json!({
            "metadata": {"name": "web", "namespace": "shop",
                "creationTimestamp": "2026-01-01T00:00:00Z"},
            "spec": {"gatewayClassName": "weft"},
            "status": {"conditions": refused},
        });
        api.put(
            "/apis/gateway.networking.k8s.io/v1/namespaces/shop/gateways/web",
            gateway,
        )
    }),
    ("annotations", &[], |api, _| {
        let mut pod = pod();
        pod["metadata"]["annotations"]["weft.dev/access"] = json!("denied");
        api.put(POD, pod);
    }),
    ("labels", &[], |api, _| {
        api.put(
            "/api/v1/namespaces/other",
            json!({"metadata": {"name": "other", "labels": {"weft.dev/inject": "true"}}}),
        )
    }),
];

/// The mesh's nodes redirect traffic, and so many of them have an agent.
fn put_by_node(api: &FakeApi, nodes: u64, ready: u64) {
    let mut injector = deployment("weft-injector", 2);
    let env = json!([{"name": "WEFT_CAPTURE_MODE", "value": "node"}]);
    injector["spec"]["template"]["spec"]["containers"] = json!([{"name": "injector", "env": env}]);
    api.put(&format!("{WEFT}/weft-injector"), injector);
    let agents = WEFT.replace("deployments", "daemonsets");
    let status = json!({"desiredNumberScheduled": nodes, "numberReady": ready});
    let set = json!({"metadata": {"name": "weft-node"}, "status": status});
    api.put(&format!("{agents}/weft-node"), set);
}

#[tokio::test]
async fn node_agents_are_counted_and_needed_by_mode() {
    let api = healthy();
    put_by_node(&api, 3, 3);
    let (ended, report, _) = checked(&api, WELL, &["--fail-on", "warning"]).await;
    assert_eq!(ended.unwrap(), Conclusion::Yes, "{report:#}");
    put_by_node(&api, 3, 0);
    let (_, report, _) = checked(&api, WELL, &[]).await;
    assert_eq!(with(&report, &["error"]), ["node-agents"], "{report:#}");
    let agents = WEFT.replace("deployments", "daemonsets");
    api.remove(&format!("{agents}/weft-node"));
    let (_, report, _) = checked(&api, WELL, &[]).await;
    assert_eq!(with(&report, &["error"]), ["node-agents"], "{report:#}");
}

// Claims: observability-7, observe-113
#[tokio::test]
async fn planted_fault_fails_only_its_own_check() {
    for (id, also, plant) in FAULTS {
        let (api, mut webhooks) = (healthy(), WELL);
        plant(&api, &mut webhooks);
        let (ended, report, table) = checked(&api, webhooks, &["--fail-on", "warning"]).await;
        assert_eq!(ended.unwrap(), Conclusion::No, "{id}: {report:#}");
        let mut found = with(&report, &["warning", "error"]);
        found.retain(|one| !also.contains(&one.as_str()));
        assert_eq!(found, [*id], "{report:#}");
        assert!(table.contains(&format!("docs/checks.md#{id}")), "{table}");
    }
    let planted: Vec<&str> = FAULTS.iter().map(|(id, ..)| *id).collect();
    let known: Vec<&str> = list::CHECKS
        .iter()
        // What pods meet of the manual's lines is no fault.
        .filter(|check| !check.pre && check.id != "applications")
        .map(|check| check.id)
        .collect();
    assert_eq!(planted, known, "a check without its fault");
}
