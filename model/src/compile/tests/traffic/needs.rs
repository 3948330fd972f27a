//! Which pods a policy is needed by where several Services lead to them.

use policy::{
    name::{Kind, ObjectRef},
    traffic::part::{Part, Parts},
};
use serde_json::{Value, json};

use super::policy;
use crate::{
    fixtures::{Cluster, *},
    model::{Model, PodId},
};

/// A headless Service with some of the pods of `api`, of which no policy speaks.
fn with_twin(cluster: Cluster) -> Cluster {
    cluster
        .with(service("twin", "None", &[("http", 8080)]))
        .with(slice(
            "twin-x",
            "twin",
            &[("http", 8080)],
            &[endpoint("api-1", "10.0.0.11")],
        ))
}

fn p() -> ObjectRef {
    ObjectRef::new(Kind::TrafficPolicy, "shop", "p")
}

/// One that gives some callers a time, and its other sections.
fn with_time(more: &Value) -> Value {
    let mut fields = json!({
        "timeouts": {"request": "1s"},
        "sources": [{"kind": "ServiceAccount", "name": "web"}],
    });
    for (name, value) in more.as_object().unwrap() {
        fields[name] = value.clone();
    }
    policy("p", &fields)
}

/// The pods that need it, each of which has it among the origins of what it is sent.
fn needed_by(model: &Model) -> Vec<String> {
    let protected = model.protected_by(&p());
    let names = protected.iter().map(|pod| {
        let got = resolve_newest(model, &pod.name, &[]);
        assert_eq!(got.published("guard").origins, [(p(), 1)], "{pod}");
        pod.name.to_string()
    });
    names.collect()
}

/// What an old proxy of a pod is not sent of it, and needs.
fn lacks(model: &Model, pod: &str) -> Vec<Parts> {
    let set = model.resolve(
        &PodId::new("shop", pod),
        &Default::default(),
        &Default::default(),
    );
    let left_out = set.unwrap().left_out;
    let of_p = left_out.iter().filter(|one| one.object == p());
    of_p.map(|one| one.lacks).collect()
}

/// It waited for ever for pods to report what no controller sends them.
#[test]
fn pods_do_not_need_policy_with_overridden_timeout() {
    let one = shop().with(with_time(&json!({})));
    let time = Parts::of(&[Part::OutsideTimeout]);
    let (model, _) = one.compile();
    assert_eq!(needed_by(&model), ["api-1", "api-2"], "control");
    assert_eq!(lacks(&model, "api-1"), [time], "control");

    let (model, _) = with_twin(one).compile();
    assert_eq!(needed_by(&model), ["api-2"]);
    assert_eq!(lacks(&model, "api-1"), []);
    assert_eq!(lacks(&model, "api-2"), [time]);
}

#[test]
fn pods_need_policy_for_remaining_sections_beside_overridden_timeout() {
    let more = json!({"rateLimits": [{"name": "each", "requests": 5, "scope": "Instance"}]});
    let (model, _) = with_twin(shop().with(with_time(&more))).compile();
    assert_eq!(needed_by(&model), ["api-1", "api-2"]);
    let limit = Parts::of(&[Part::InstanceLimit]);
    assert_eq!(lacks(&model, "api-1"), [limit], "no time");
    let all = limit.and(Parts::of(&[Part::OutsideTimeout]));
    assert_eq!(lacks(&model, "api-2"), [all], "control");
}

/// A newer proxy repairs nothing where it is not sent at all.
#[test]
fn pods_do_not_need_policy_with_overridden_sections() {
    let fields = json!({"overload": {"maxConcurrency": 10}, "priority": "Critical"});
    let both = with_twin(shop().with(created(policy("p", &fields), 2)));
    let all = Parts::of(&[Part::Overload, Part::Priority]);
    let (model, _) = both.compile();
    assert_eq!(needed_by(&model), ["api-1", "api-2"], "control");
    assert_eq!(lacks(&model, "api-1"), [all], "control");

    let of_twin = |fields: &Value| {
        let spec = set(
            fields.clone(),
            "/targetRef",
            json!({"kind": "Service", "name": "twin"}),
        );
        both.clone().with(created(traffic_policy("first", spec), 1))
    };
    let (model, _) = of_twin(&json!({"overload": {}, "priority": "Sheddable"})).compile();
    assert_eq!(needed_by(&model), ["api-2"]);
    assert_eq!(lacks(&model, "api-1"), []);
    assert_eq!(lacks(&model, "api-2"), [all]);
    // Only one of them is decided there.
    let (model, _) = of_twin(&json!({"overload": {}})).compile();
    assert_eq!(lacks(&model, "api-1"), [Parts::of(&[Part::Priority])]);
}
