//! Proxies that cannot use what is made of an object.
//!
//! Claims: attack-56, calls-32, calls-36, calls-66

use super::*;

/// What a replica reports of a proxy that needs the split.
fn with_split(pod: &str, too_old: bool) -> v1::ProxyState {
    v1::ProxyState {
        namespace: "shop".to_owned(),
        pod: pod.to_owned(),
        objects: vec![v1::ObjectState {
            object: Some(v1::ObjectRef::from(&canary())),
            needed: 1,
            acknowledged: !too_old,
            too_old,
            ..v1::ObjectState::default()
        }],
        ..v1::ProxyState::default()
    }
}

#[tokio::test(start_paused = true)]
async fn outdated_proxy_keeps_object_unprogrammed_and_is_named() {
    let mut bench = Bench::new(&[("api", 1)]);
    let observed = bench.writer.observed.clone();
    observed.note(1, with_split("one", false));
    observed.note(2, with_split("two", true));
    bench.round().await;
    let programmed = bench.condition("Programmed");
    assert_eq!(programmed["status"], json!("False"));
    assert_eq!(programmed["reason"], json!("ProxyTooOld"));
    let message = programmed["message"].as_str().unwrap();
    assert!(message.starts_with("1 of 2 proxies; the proxies of shop/two are too old"));

    observed.note(2, with_split("two", false));
    tokio::time::advance(COUNT_EVERY).await;
    bench.round().await;
    assert_eq!(bench.condition("Programmed")["status"], json!("True"));
}

/// Another replica may be newer, and tell of what this version has not.
#[tokio::test(start_paused = true)]
async fn field_unknown_to_current_proxies_is_reported_separately() {
    let mut bench = Bench::new(&[("api", 1)]);
    let mut state = with_split("one", true);
    state.objects[0].lacks = vec!["retry".to_owned(), "teleport".to_owned()];
    bench.writer.observed.note(1, state);
    bench.round().await;
    let programmed = bench.condition("Programmed");
    let message = programmed["message"].as_str().unwrap();
    for part in [
        "the proxies of shop/one are too old for retry: restart these pods",
        "no proxy of this version does anything by teleport yet",
    ] {
        assert!(message.contains(part), "{message}");
    }
}

const POLICY: &str = "/apis/weft.dev/v1alpha1/namespaces/shop/trafficpolicies/p";

/// A policy about `api`, which `client` calls.
struct Harness {
    bench: Bench,
    model: Model,
}

impl Harness {
    fn new(fields: &serde_json::Value) -> Self {
        let mut spec = json!({"targetRef": {"kind": "Service", "name": "api"}});
        for (name, value) in fields.as_object().unwrap() {
            spec[name] = value.clone();
        }
        let policy = cluster::traffic_policy("p", spec);
        let bench = Bench::new(&[("api", 1)]);
        bench.api.put(POLICY, policy.clone());
        let world = Arc::new(cluster::shop().with(policy).world());
        let (model, problems) = Model::compile(&world, &Defaults::default());
        let (compiled_model, _) = Model::compile(&world, &Defaults::default());
        let compiled = Arc::new(Compiled::new(world, model, problems));
        bench.models.send_replace(Some(compiled));
        Self {
            bench,
            model: compiled_model,
        }
    }

    /// What the replica reports of the streams of three proxies that name these capabilities, and
    /// have acknowledged what they were sent.
    fn streams(&self, capabilities: &[String]) {
        for (stream, pod) in [(1, "client"), (2, "api-1"), (3, "api-2")] {
            let pod_id = model::PodId::new("shop", pod);
            let mut names = BTreeSet::new();
            if pod == "client" {
                names.insert("destination/10.96.0.1:80".to_owned());
            }
            let capabilities = wire::capability::Capabilities::named(capabilities);
            let set = self.model.resolve(&pod_id, &names, &capabilities).unwrap();
            let lacking = set.left_out.iter().map(|one| v1::ObjectState {
                object: Some(v1::ObjectRef::from(&one.object)),
                needed: one.generation,
                too_old: true,
                lacks: one
                    .lacks
                    .iter()
                    .map(|part| part.field().to_owned())
                    .collect(),
                ..v1::ObjectState::default()
            });
            let lacks = |object: &ObjectRef| set.left_out.iter().any(|one| one.object == *object);
            let sent = set.resources.values().flat_map(|sent| &sent.origins);
            let sent = sent.filter(|(object, _)| !lacks(object));
            let states = sent.map(|(object, generation)| v1::ObjectState {
                object: Some(v1::ObjectRef::from(object)),
                needed: *generation,
                acknowledged: true,
                ..v1::ObjectState::default()
            });
            let state = v1::ProxyState {
                namespace: "shop".to_owned(),
                pod: pod.to_owned(),
                objects: lacking.chain(states).collect(),
                destinations: names.iter().cloned().collect(),
                ..v1::ProxyState::default()
            };
            self.bench.writer.observed.note(stream, state);
        }
    }

    /// What the replica reports of `client`, which calls `api`: whether it has acknowledged the
    /// policy, and why it could not.
    fn caller(&self, support: Option<(bool, &str)>) {
        let policy = ObjectRef::new(Kind::TrafficPolicy, "shop", "p");
        let objects = support
            .into_iter()
            .map(|(acknowledged, nack)| v1::ObjectState {
                object: Some(v1::ObjectRef::from(&policy)),
                needed: 1,
                acknowledged,
                nack: nack.to_owned(),
                ..v1::ObjectState::default()
            });
        let state = v1::ProxyState {
            namespace: "shop".to_owned(),
            pod: "client".to_owned(),
            objects: objects.collect(),
            destinations: vec!["destination/10.96.0.1:80".to_owned()],
            ..v1::ProxyState::default()
        };
        self.bench.writer.observed.note(1, state);
    }

    fn condition(&self, index: usize) -> [String; 4] {
        let status = self.bench.api.read(POLICY).unwrap()["status"].clone();
        let written = status["conditions"][index].clone();
        ["type", "status", "reason", "message"]
            .map(|word| written[word].as_str().unwrap().to_owned())
    }
}

#[tokio::test(start_paused = true)]
async fn unsupported_policy_reports_fields_and_target_in_status() {
    let limit = json!([{"name": "all", "requests": 5}]);
    let mut harness = Harness::new(&json!({"retry": {}, "rateLimits": limit}));
    // Older than policies.
    harness.streams(&["extended-rule".to_owned()]);
    harness.bench.round().await;
    let status = harness.bench.api.read(POLICY).unwrap()["status"].clone();
    assert_eq!(status["target"], json!("Service/api"));
    assert_eq!(status["summary"], json!("retry, rateLimits"));
    assert_eq!(harness.condition(0)[..3], ["Accepted", "True", "Accepted"]);
    let resolved = ["ResolvedRefs", "True", "ResolvedRefs"];
    assert_eq!(harness.condition(1)[..3], resolved);
    let [kind, status, reason, message] = harness.condition(2);
    assert_eq!(
        [&*kind, &*status, &*reason],
        ["Programmed", "False", "ProxyTooOld"]
    );
    let old = "0 of 3 proxies; the proxies of shop/api-1, shop/api-2, shop/client are too old for \
               rateLimits with scope Service, retry: restart these pods";
    assert_eq!(message, old);
}

#[tokio::test(start_paused = true)]
async fn policy_is_programmed_once_all_callers_support_it() {
    let mut harness = Harness::new(&json!({
        "retry": {}, "ejection": {}, "timeouts": {"backendRequest": "1s"}, "balance": {"warmup": "5s"},
    }));
    harness.streams(&["extended-rule".to_owned()]);
    harness.bench.round().await;
    let [_, status, reason, message] = harness.condition(2);
    assert_eq!([&*status, &*reason], ["False", "ProxyTooOld"], "{message}");
    let old = "0 of 1 proxies; the proxies of shop/client are too old for balance.warmup, \
               ejection, retry, timeouts.backendRequest: restart these pods";
    assert_eq!(message, old);

    harness.streams(&wire::capability::Capabilities::of_this_version());
    tokio::time::advance(COUNT_EVERY).await;
    harness.bench.round().await;
    let [_, status, reason, message] = harness.condition(2);
    assert_eq!([&*status, &*reason], ["True", "Programmed"], "{message}");
    assert_eq!(message, "1 of 1 proxies");
}

#[tokio::test(start_paused = true)]
async fn service_limit_status_explains_how_pods_share_it() {
    let limits = json!([
        {"name": "all", "requests": 5},
        {"name": "each", "requests": 5, "scope": "Instance"},
    ]);
    let mut harness = Harness::new(&json!({"rateLimits": limits}));
    harness.streams(&wire::capability::Capabilities::of_this_version());
    harness.bench.round().await;
    let [_, status, reason, message] = harness.condition(2);
    assert_eq!([&*status, &*reason], ["True", "Programmed"], "{message}");
    let kept = "2 of 2 proxies; rateLimits all hold for all pods of a Service together: each keeps \
                a part, which follows what is offered to it, and the parts are no more than the \
                limit";
    assert_eq!(message, kept);
}

/// Callers by its pods' addresses are held to it by those alone.
#[tokio::test(start_paused = true)]
async fn account_timeout_needs_support_of_called_pods_too() {
    let web = json!([{"kind": "ServiceAccount", "name": "web"}]);
    let mut harness = Harness::new(&json!({"timeouts": {"request": "1s"}, "sources": web}));
    let all = wire::capability::Capabilities::of_this_version();
    let mut older = all.clone();
    older.retain(|one| one != "traffic-policy/outside-timeout");
    harness.streams(&older);
    harness.bench.round().await;
    let [_, status, reason, message] = harness.condition(2);
    assert_eq!([&*status, &*reason], ["False", "ProxyTooOld"], "{message}");
    let old = "1 of 3 proxies; the proxies of shop/api-1, shop/api-2 are too old for \
               timeouts.request at the called pod: restart these pods";
    assert_eq!(message, old);

    harness.streams(&all);
    tokio::time::advance(COUNT_EVERY).await;
    harness.bench.round().await;
    let [_, status, reason, message] = harness.condition(2);
    assert_eq!([&*status, &*reason], ["True", "Programmed"], "{message}");
    assert_eq!(message, "3 of 3 proxies");
}

#[tokio::test(start_paused = true)]
async fn policy_status_counts_callers_and_shows_their_nack() {
    let mut harness = Harness::new(&json!({"retry": {}}));
    harness.bench.round().await;
    let no_proxies = ["Programmed", "True", "NoProxies", "0 of 0 proxies"];
    assert_eq!(harness.condition(2), no_proxies);
    let nacked = "0 of 1 proxies; shop/client could not use it: retry: no";
    for (support, status, reason, message) in [
        (None, "False", "Pending", "0 of 1 proxies"),
        (Some((false, "retry: no")), "False", "Nacked", nacked),
        (Some((true, "")), "True", "Programmed", "1 of 1 proxies"),
    ] {
        harness.caller(support);
        harness.bench.round().await;
        assert_eq!(
            harness.condition(2),
            ["Programmed", status, reason, message]
        );
    }
}
