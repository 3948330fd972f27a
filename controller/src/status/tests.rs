//! Conditions follow what is judged and acknowledged.
//!
//! Claims: attack-90

use std::sync::Arc;

use model::{Defaults, Model};
use policy::name::Kind;
use serde_json::Value;
use tokio::sync::watch;
use wire::v1;

use super::conditions::RECONNECT;
use super::*;
use crate::network_policy::InForce;
use crate::testing::api_server::FakeApi;
use crate::testing::cluster;

const PATH: &str = "/apis/split.smi-spec.io/v1alpha4/namespaces/shop/trafficsplits/canary";

mod breaker;
mod guarded;
mod kinds;
mod parents;
mod revoked;
mod too_old;
mod unconverted;
mod unmeshed;

fn canary() -> ObjectRef {
    ObjectRef::new(Kind::TrafficSplit, "shop", "canary")
}

struct Bench {
    api: FakeApi,
    writer: StatusWriter,
    written: BTreeMap<ObjectRef, Written>,
    models: watch::Sender<Option<Arc<Compiled>>>,
}

fn compiled(backends: &[(&str, i64)], generation: i64) -> Arc<Compiled> {
    let split = cluster::split("canary", "api", backends);
    let split = cluster::set(split, "/metadata/generation", json!(generation));
    let world = Arc::new(cluster::shop().with(split).world());
    let (model, problems) = Model::compile(&world, &Defaults::default());
    Arc::new(Compiled::new(world, model, problems))
}

impl Bench {
    fn new(backends: &[(&str, i64)]) -> Self {
        let api = FakeApi::default();
        let split = cluster::split("canary", "api", backends);
        api.put(PATH, split);
        let (models, latest) = watch::channel(Some(compiled(backends, 1)));
        let (events, _) = EventRecorder::new(api.client(), "me", Counter::default());
        let writer = StatusWriter {
            client: api.client(),
            fleet: Fleet::new(latest.clone(), Counter::default()),
            latest,
            enforced: None,
            observed: Observed::settled(),
            gateway_api: true,
            events,
            written: Counter::default(),
        };
        Self {
            api,
            writer,
            written: BTreeMap::new(),
            models,
        }
    }

    async fn round(&mut self) -> Option<Instant> {
        let compiled = self.writer.latest.borrow_and_update().clone()?;
        let later = self.writer.write_due(&compiled, None, &mut self.written);
        later.await.into_values().min()
    }

    fn proxy(&self, pod: &str, generation: i64, acknowledged: bool, nack: &str) {
        let object = v1::ObjectState {
            object: Some(v1::ObjectRef::from(&canary())),
            needed: generation,
            acknowledged,
            nack: nack.to_owned(),
            ..v1::ObjectState::default()
        };
        self.writer.observed.note(
            1,
            v1::ProxyState {
                namespace: "shop".to_owned(),
                pod: pod.to_owned(),
                objects: vec![object],
                ..v1::ProxyState::default()
            },
        );
    }

    fn condition(&self, name: &str) -> Value {
        let object = self.api.read(PATH).unwrap();
        let conditions = object["status"]["conditions"].as_array().unwrap();
        conditions
            .iter()
            .find(|condition| condition["type"] == name)
            .unwrap()
            .clone()
    }
}

#[tokio::test(start_paused = true)]
async fn status_shows_acceptance_and_progress_of_object() {
    let mut bench = Bench::new(&[("api", 1)]);
    bench.proxy("client", 1, true, "");
    bench.round().await;
    for name in ["Accepted", "ResolvedRefs", "Programmed"] {
        assert_eq!(bench.condition(name)["status"], json!("True"), "{name}");
        assert_eq!(bench.condition(name)["observedGeneration"], json!(1));
    }
    assert_eq!(
        bench.condition("Programmed")["message"],
        json!("1 of 1 proxies")
    );
    assert!(bench.api.read(PATH).unwrap()["status"]["summary"].is_string());
}

#[tokio::test(start_paused = true)]
async fn object_is_programmed_after_last_proxy_has_generation() {
    let mut bench = Bench::new(&[("api", 1)]);
    bench.proxy("one", 1, true, "");
    bench.proxy("two", 1, false, "");
    bench.round().await;
    assert_eq!(bench.condition("Programmed")["status"], json!("False"));
    assert_eq!(bench.condition("Programmed")["reason"], json!("Pending"));
    assert_eq!(
        bench.condition("Programmed")["message"],
        json!("1 of 2 proxies")
    );
    bench.proxy("two", 1, true, "");
    bench.round().await;
    assert_eq!(bench.condition("Programmed")["status"], json!("True"));
}

#[tokio::test(start_paused = true)]
async fn nack_names_the_pod_and_its_reason() {
    let mut bench = Bench::new(&[("api", 1)]);
    bench.proxy("one", 1, false, "unknown split");
    bench.round().await;
    let programmed = bench.condition("Programmed");
    assert_eq!(programmed["reason"], json!("Nacked"));
    assert!(
        programmed["message"]
            .as_str()
            .unwrap()
            .contains("shop/one could not use it: unknown split")
    );
}

#[tokio::test(start_paused = true)]
async fn wrong_field_stands_in_the_condition() {
    let mut bench = Bench::new(&[("api", -1)]);
    bench.round().await;
    let accepted = bench.condition("Accepted");
    assert_eq!(accepted["status"], json!("False"));
    assert!(
        accepted["message"]
            .as_str()
            .unwrap()
            .contains("spec.backends[0].weight"),
        "{accepted}"
    );
    assert_eq!(bench.condition("Programmed")["status"], json!("False"));
}

#[tokio::test(start_paused = true)]
async fn nothing_new_is_not_written() {
    let mut bench = Bench::new(&[("api", 1)]);
    bench.round().await;
    assert_eq!(bench.round().await, None);
    assert_eq!(bench.writer.written.get(), 1);
}

#[tokio::test(start_paused = true)]
async fn count_updates_wait_five_seconds_unlike_status_changes() {
    let mut bench = Bench::new(&[("api", 1)]);
    bench.proxy("one", 1, false, "");
    bench.round().await;
    bench.proxy("two", 1, false, "");
    let next = bench.round().await.unwrap();
    assert_eq!(
        bench.condition("Programmed")["message"],
        json!("0 of 1 proxies")
    );
    tokio::time::sleep_until(next).await;
    bench.round().await;
    assert_eq!(
        bench.condition("Programmed")["message"],
        json!("0 of 2 proxies")
    );

    bench.proxy("one", 1, true, "");
    bench.proxy("two", 1, true, "");
    bench.round().await;
    assert_eq!(
        bench.condition("Programmed")["status"],
        json!("True"),
        "at once"
    );
}

#[tokio::test(start_paused = true)]
async fn new_generation_is_written_immediately_keeping_unchanged_transition_time() {
    let mut bench = Bench::new(&[("api", 1)]);
    bench.api.put(PATH, {
        let mut object = bench.api.read(PATH).unwrap();
        object["status"]["conditions"] = json!([{
            "type": "Accepted", "status": "True", "lastTransitionTime": "2026-01-01T00:00:00Z",
        }]);
        object
    });
    bench.written = bench.writer.read_all().await;
    bench.round().await;
    bench.models.send_replace(Some(compiled(&[("api", 2)], 2)));
    bench.round().await;
    let accepted = bench.condition("Accepted");
    assert_eq!(accepted["observedGeneration"], json!(2));
    assert_eq!(
        accepted["lastTransitionTime"],
        json!("2026-01-01T00:00:00Z")
    );
}

#[tokio::test(start_paused = true)]
async fn object_that_went_away_is_no_failure_to_retry() {
    let mut bench = Bench::new(&[("api", 1)]);
    bench.api.remove(PATH);
    assert_eq!(bench.round().await, None);
}

#[tokio::test(start_paused = true)]
async fn udp_objects_are_programmed_after_their_network_policies() {
    const TARGET: &str = "/apis/access.smi-spec.io/v1alpha4/namespaces/shop/traffictargets/t";
    const ROUTE: &str = "/apis/specs.smi-spec.io/v1alpha4/namespaces/shop/udproutes/dns";
    let rules = json!([{"kind": "UDPRoute", "name": "dns"}]);
    let target = cluster::target("t", "quiet", &["web"], rules);
    let route = cluster::udp_route("dns", &[53]);
    let world = cluster::shop().with(target.clone()).with(route.clone());
    let compiled = |on: bool| {
        let world = Arc::new(world.world());
        let defaults = Defaults {
            udp_network_policies: on,
            ..Defaults::default()
        };
        let (model, problems) = Model::compile(&world, &defaults);
        Arc::new(Compiled::new(world, model, problems))
    };
    let mut bench = Bench::new(&[("api", 1)]);
    bench.api.put(TARGET, target);
    bench.api.put(ROUTE, route);
    let shown_of = |bench: &Bench, path: &str, condition: usize| {
        let written = bench.api.read(path).unwrap()["status"]["conditions"][condition].clone();
        let text = |field: &str| written[field].as_str().unwrap().to_owned();
        (text("status"), text("reason"), text("message"))
    };
    let shown = |bench: &Bench, condition: usize| shown_of(bench, TARGET, condition);
    let route_shown = |bench: &Bench| shown_of(bench, ROUTE, 2);
    let is = |shown: (String, String, String), status: &str, reason: &str, part: &str| {
        assert_eq!(
            (shown.0.as_str(), shown.1.as_str()),
            (status, reason),
            "{shown:?}"
        );
        assert!(shown.2.contains(part), "{shown:?}");
    };
    // Switched off: Accepted says so, and how to switch it on.
    bench.models.send_replace(Some(compiled(false)));
    bench.round().await;
    is(
        shown(&bench, 0),
        "True",
        "NotEnforced",
        "access.udpNetworkPolicies=true",
    );
    is(shown(&bench, 2), "True", "NoProxies", "0 of 0");

    let (enforced, written) = watch::channel(None);
    bench.writer.enforced = Some(written);
    bench.models.send_replace(Some(compiled(true)));
    bench.round().await;
    is(shown(&bench, 0), "True", "Accepted", "");
    is(shown(&bench, 2), "False", "Pending", "not been settled");
    is(route_shown(&bench), "False", "Pending", "TrafficTarget t: ");
    let say = |(generation, route): (i64, i64), lacks: Option<&'static str>, message: &str| {
        let in_force = InForce {
            generation,
            routes: [("dns".into(), route)].into(),
            lacks,
            message: message.to_owned(),
        };
        let key = model::world::ObjectKey::new("shop", "t");
        enforced.send_replace(Some(Arc::new(Enforced::from([(key, in_force)]))));
    };
    say((1, 1), Some("ForeignNetworkPolicy"), "NetworkPolicy theirs");
    bench.round().await;
    is(shown(&bench, 2), "False", "ForeignNetworkPolicy", "theirs");
    is(
        route_shown(&bench),
        "False",
        "ForeignNetworkPolicy",
        "TrafficTarget t: NetworkPolicy theirs",
    );
    say((1, 1), None, "UDP by NetworkPolicy x");
    bench.round().await;
    is(
        shown(&bench, 2),
        "True",
        "Programmed",
        "0 of 0 proxies; UDP by NetworkPolicy x",
    );
    is(
        route_shown(&bench),
        "True",
        "Programmed",
        "0 of 0 proxies; in force for TrafficTarget t",
    );
    say((1, 0), None, "of an older generation of the route");
    bench.round().await;
    is(shown(&bench, 2), "False", "Pending", "");
    is(route_shown(&bench), "False", "Pending", "");
    say((0, 1), None, "of an older generation");
    bench.round().await;
    is(shown(&bench, 2), "False", "Pending", "");
}

#[tokio::test(start_paused = true)]
async fn later_acknowledgements_and_models_are_each_written_alone() {
    let bench = Bench::new(&[("api", 1)]);
    let writing = tokio::spawn(bench.writer.clone().write());
    sleep(Duration::from_secs(1)).await;
    assert_eq!(bench.condition("Programmed")["reason"], json!("NoProxies"));
    bench.proxy("client", 1, true, "");
    sleep(Duration::from_secs(1)).await;
    let value = bench.condition("Programmed")["message"].clone();
    assert_eq!(value, json!("1 of 1 proxies"));
    // Counts that only tick wait, and come without another cause.
    bench.proxy("other", 1, true, "");
    sleep(COUNT_EVERY + Duration::from_secs(1)).await;
    let value = bench.condition("Programmed")["message"].clone();
    assert_eq!(value, json!("2 of 2 proxies"));
    bench.models.send_replace(Some(compiled(&[("api", 2)], 2)));
    sleep(Duration::from_secs(1)).await;
    let value = bench.condition("Accepted")["observedGeneration"].clone();
    assert_eq!(value, json!(2));
    writing.abort();
}
