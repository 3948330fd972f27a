//! A namespace that has left the mesh: nothing that its objects say is in force.

use super::*;

const TARGET: &str = "/apis/access.smi-spec.io/v1alpha4/namespaces/shop/traffictargets/t";
const POLICY: &str = "/apis/weft.dev/v1alpha1/namespaces/shop/trafficpolicies/p";

/// Status, reason and message of `Programmed` of the split, the target and the policy of a
/// namespace in which the pods of `client` and of `api` are as they are said to be.
async fn programmed(client: Value, api: [Value; 2]) -> [[String; 3]; 3] {
    let rules = json!([{"kind": "TCPRoute", "name": "all"}]);
    let target = cluster::target("t", "api", &["web"], rules);
    let about = json!({"targetRef": {"kind": "Service", "name": "api"}, "retry": {}});
    let policy = cluster::traffic_policy("p", about);
    let [first, second] = api;
    let world = cluster::shop()
        .with(client)
        .with(first)
        .with(second)
        .with(cluster::tcp_route("all", &[]))
        .with(cluster::split("canary", "api", &[("api", 1)]))
        .with(target.clone())
        .with(policy.clone());
    let world = Arc::new(world.world());
    let (model, problems) = Model::compile(&world, &Defaults::default());
    let mut bench = Bench::new(&[("api", 1)]);
    bench.api.put(TARGET, target);
    bench.api.put(POLICY, policy);
    let compiled = Arc::new(Compiled::new(world, model, problems));
    bench.models.send_replace(Some(compiled));
    bench.round().await;
    [PATH, TARGET, POLICY].map(|path| {
        let object = bench.api.read(path).unwrap();
        let condition = &object["status"]["conditions"][2];
        ["status", "reason", "message"].map(|field| condition[field].as_str().unwrap().to_owned())
    })
}

fn apis(pod: fn(&str, &str, &str) -> Value) -> [Value; 2] {
    [("api-1", "10.0.0.11"), ("api-2", "10.0.0.12")].map(|(name, ip)| pod(name, ip, "api"))
}

#[tokio::test(start_paused = true)]
async fn objects_of_a_namespace_without_proxies_are_not_programmed() {
    let client = cluster::plain_pod("client", "10.0.0.1", "web");
    for [status, reason, message] in programmed(client, apis(cluster::plain_pod)).await {
        assert_eq!([&*status, &*reason], ["False", "NotMeshed"], "{message}");
        assert!(
            message.starts_with("0 of 0 proxies; no pod of "),
            "{message}"
        );
        assert!(message.contains("or delete it"), "{message}");
    }
}

#[tokio::test(start_paused = true)]
async fn target_without_proxied_pods_is_not_programmed() {
    let client = cluster::pod("client", "10.0.0.1", "web");
    let [split, target, policy] = programmed(client, apis(cluster::plain_pod)).await;
    assert_eq!(target[..2], ["False", "NotMeshed"], "{target:?}");
    assert!(
        target[2].contains("no pod of api has a proxy"),
        "{target:?}"
    );
    // A proxy is there that may call: it has not called.
    assert_eq!(split[..2], ["True", "NoProxies"], "{split:?}");
    let uncalled = "0 of 0 proxies; no pod with a proxy has called Service api";
    assert_eq!(split[2], uncalled);
    assert_eq!(policy[..2], ["True", "NoProxies"], "{policy:?}");
}

#[tokio::test(start_paused = true)]
async fn split_to_pods_partly_without_proxies_says_so() {
    for bare in [false, true] {
        let mut bench = Bench::new(&[("api", 1)]);
        bench.proxy("client", 1, true, "");
        let mut shop = cluster::shop();
        if bare {
            shop = shop.with(cluster::plain_pod("api-2", "10.0.0.12", "api"));
        }
        let split = cluster::split("canary", "api", &[("api", 1)]);
        let world = Arc::new(shop.with(split).world());
        let (model, problems) = Model::compile(&world, &Defaults::default());
        let compiled = Arc::new(Compiled::new(world, model, problems));
        bench.models.send_replace(Some(compiled));
        bench.round().await;
        let condition = bench.condition("Programmed");
        assert_eq!(condition["status"], json!("True"));
        let (reason, message) = if bare {
            (
                "PartlyMeshed",
                "1 of 1 proxies; 1 of 2 pods of api have no proxy, so calls go to them in \
                 plaintext and no rule protects them: give them one, or their Service the weight 0",
            )
        } else {
            ("Programmed", "1 of 1 proxies")
        };
        assert_eq!(condition["reason"], json!(reason));
        assert_eq!(condition["message"], json!(message));
    }
}

#[test]
fn target_of_pods_partly_without_proxies_says_so() {
    let mut unmeshed = Unmeshed::default();
    let rules = json!([{"kind": "TCPRoute", "name": "all"}]);
    let world = cluster::shop()
        .with(cluster::plain_pod("api-2", "10.0.0.12", "api"))
        .with(cluster::tcp_route("all", &[]))
        .with(cluster::target("t", "api", &["web"], rules.clone()))
        .with(cluster::target("of-web", "web", &["api"], rules));
    let world = Arc::new(world.world());
    let (model, problems) = Model::compile(&world, &Defaults::default());
    let compiled = Compiled::new(world, model, problems);
    let mut said = |name: &str| {
        let target = ObjectRef::new(Kind::TrafficTarget, "shop", name);
        unmeshed.partly(&target, &compiled)
    };
    let words = said("t").unwrap();
    assert!(
        words.starts_with("1 of 2 pods of api have no proxy, so they refuse no caller by it"),
        "{words}"
    );
    assert_eq!(said("of-web"), None);
}

/// Applied before its pods, as in a new namespace.
#[tokio::test(start_paused = true)]
async fn target_without_pods_waits_for_no_proxy() {
    let ended = |pod: Value| cluster::set(pod, "/status/phase", json!("Succeeded"));
    let client = cluster::pod("client", "10.0.0.1", "web");
    let [_, target, _] = programmed(client, apis(cluster::plain_pod).map(ended)).await;
    assert_eq!(target[..2], ["True", "NoProxies"], "{target:?}");
}
