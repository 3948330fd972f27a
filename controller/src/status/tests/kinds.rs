//! What a target is made from has a status of its own.

use super::*;

const ROUTE: &str = "/apis/specs.smi-spec.io/v1alpha4/namespaces/shop/tcproutes/ports";
const BINDING: &str = "/apis/access.smi-spec.io/v1alpha4/namespaces/shop/identitybindings/callers";

/// A bench with a TCPRoute and an IdentityBinding, and a target that names both.
fn bench(route: Value, binding: Value) -> Bench {
    let bench = Bench::new(&[("api", 1)]);
    let rules = json!([{"kind": "TCPRoute", "name": "ports"}]);
    let target = cluster::target("t", "api", &["callers"], rules);
    let target = cluster::set(target, "/spec/sources/0/kind", json!("IdentityBinding"));
    bench.api.put(ROUTE, route.clone());
    bench.api.put(BINDING, binding.clone());
    let world = cluster::shop().with(target).with(route).with(binding);
    let world = Arc::new(world.world());
    let (model, problems) = Model::compile(&world, &Defaults::default());
    let compiled = Compiled::new(world, model, problems);
    bench.models.send_replace(Some(Arc::new(compiled)));
    bench
}

/// The condition of the object that stands there, and its status and reason.
fn condition(bench: &Bench, path: &str, name: &str) -> (Value, String, String) {
    let object = bench.api.read(path).unwrap();
    let all = object["status"]["conditions"].as_array().unwrap();
    let found = all.iter().find(|one| one["type"] == name).unwrap();
    let text = |field: &str| found[field].as_str().unwrap().to_owned();
    (found.clone(), text("status"), text("reason"))
}

/// The proxies of both pods that the target protects say what they have of the objects.
fn proxies_have(bench: &Bench, acknowledged: bool, nack: &str) {
    let of = |kind, name| v1::ObjectState {
        object: Some(v1::ObjectRef::from(&ObjectRef::new(kind, "shop", name))),
        needed: 1,
        acknowledged,
        nack: nack.to_owned(),
        ..v1::ObjectState::default()
    };
    for (stream, pod) in [(1, "api-1"), (2, "api-2")] {
        let objects = vec![
            of(Kind::TcpRoute, "ports"),
            of(Kind::IdentityBinding, "callers"),
        ];
        let state = v1::ProxyState {
            namespace: "shop".to_owned(),
            pod: pod.to_owned(),
            uid: format!("uid-{pod}"),
            service_account: "api".to_owned(),
            objects,
            ..v1::ProxyState::default()
        };
        bench.writer.observed.note(stream, state);
    }
}

fn usable() -> Bench {
    bench(
        cluster::tcp_route("ports", &[8080]),
        cluster::binding("callers", json!({"serviceAccount": "web"})),
    )
}

#[tokio::test(start_paused = true)]
async fn tcp_route_and_identity_binding_report_their_progress() {
    let mut bench = usable();
    proxies_have(&bench, false, "");
    bench.round().await;
    for path in [ROUTE, BINDING] {
        for name in ["Accepted", "ResolvedRefs"] {
            let (shown, status, _) = condition(&bench, path, name);
            assert_eq!(status, "True", "{path} {shown}");
            assert_eq!(shown["observedGeneration"], 1, "{path} {shown}");
        }
        let (shown, status, reason) = condition(&bench, path, "Programmed");
        assert_eq!((&*status, &*reason), ("False", "Pending"), "{path} {shown}");
        assert_eq!(shown["message"], "0 of 2 proxies", "{path}");
    }
    proxies_have(&bench, true, "");
    bench.round().await;
    for path in [ROUTE, BINDING] {
        let (shown, status, reason) = condition(&bench, path, "Programmed");
        assert_eq!(
            (&*status, &*reason),
            ("True", "Programmed"),
            "{path} {shown}"
        );
        assert_eq!(shown["message"], "2 of 2 proxies", "{path}");
    }
}

#[tokio::test(start_paused = true)]
async fn nack_of_target_appears_on_each_source_object() {
    let mut bench = usable();
    proxies_have(&bench, false, "sources[0]: no");
    bench.round().await;
    for path in [ROUTE, BINDING] {
        let (shown, status, reason) = condition(&bench, path, "Programmed");
        assert_eq!((&*status, &*reason), ("False", "Nacked"), "{path} {shown}");
        let message = shown["message"].as_str().unwrap();
        assert!(message.contains("shop/api-1 could not use it"), "{shown}");
    }
}

#[tokio::test(start_paused = true)]
async fn invalid_tcp_route_or_binding_field_reaches_status() {
    let mut bench = bench(
        cluster::tcp_route("ports", &[70_000]),
        cluster::binding("callers", json!({"serviceAccount": "no such name"})),
    );
    bench.round().await;
    for (path, field) in [
        (ROUTE, "spec.matches.ports[0]"),
        (BINDING, "spec.schemes.serviceAccount"),
    ] {
        let (shown, status, _) = condition(&bench, path, "Accepted");
        assert_eq!(status, "False", "{path} {shown}");
        assert!(
            shown["message"].as_str().unwrap().contains(field),
            "{shown}"
        );
        let (shown, status, _) = condition(&bench, path, "Programmed");
        assert_eq!(status, "False", "{path} {shown}");
    }
}
