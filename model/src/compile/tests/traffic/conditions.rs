//! What authors of policies read in their statuses.
//!
//! Claims: calls-32

use serde_json::json;

use super::{about_api, of_namespace, policy, with_next};
use crate::{
    compile::tests::{failures, report},
    fixtures::{self as cluster, Cluster, *},
    model::{Model, changes::Interest},
    problem::{
        ConditionType::{self, Accepted, ResolvedRefs},
        Problems, Reason, Severity,
    },
};

fn problems(cluster: &Cluster) -> Problems {
    cluster.compile().1
}

/// Reasons, fields and messages of what only warns.
fn warnings(problems: &Problems, of: ConditionType) -> Vec<(Reason, &str, &str)> {
    let warned = problems.list.iter();
    let warned = warned.filter(|one| one.condition == of && one.severity == Severity::Warning);
    warned
        .map(|one| (one.reason, &*one.field, &*one.message))
        .collect()
}

#[test]
fn kubectl_columns_show_target_and_sections_of_policy() {
    let cluster = shop()
        .with(policy("p", &json!({"retry": {}, "timeouts": {}})))
        .with(of_namespace("n", &json!({"breaker": {}})));
    let reported = problems(&cluster);
    let one = report(&reported, "TrafficPolicy p");
    assert_eq!(
        (one.target.as_deref(), &*one.summary),
        (Some("Service/api"), "timeouts, retry")
    );
    let other = report(&reported, "TrafficPolicy n");
    assert_eq!(other.target.as_deref(), Some("Namespace/shop"));
    assert!(one.accepted.status && one.resolved_refs.status, "{one:?}");
}

#[test]
fn invalid_section_is_rejected_and_next_policy_decides() {
    let cluster = shop()
        .with(policy(
            "bad",
            &json!({"timeouts": {"request": "9d"}, "retry": {"attempts": 2}}),
        ))
        .with(of_namespace(
            "wide",
            &json!({"timeouts": {"request": "8s"}}),
        ));
    let reported = problems(&cluster);
    assert_eq!(
        failures(&reported, Accepted),
        [(Reason::Invalid, "spec.timeouts.request")]
    );
    assert!(report(&reported, "TrafficPolicy wide").accepted.status);
    let effective = super::client_policy(&cluster);
    assert_eq!(super::request(&effective), Some(8));
    assert_eq!(
        effective.retry.rules[0]
            .then
            .as_ref()
            .unwrap()
            .section
            .attempts,
        2
    );
}

#[test]
fn overridden_policy_is_conflicted_and_partly_overridden_one_warned() {
    let older = created(policy("older", &json!({"timeouts": {}})), 1);
    let younger = created(policy("younger", &json!({"timeouts": {}})), 2);
    let wide = of_namespace("wide", &json!({"timeouts": {}, "retry": {}}));
    let reported = problems(&shop().with(older).with(younger).with(wide));
    assert_eq!(failures(&reported, Accepted), [(Reason::Conflicted, "")]);
    let loser = report(&reported, "TrafficPolicy younger");
    assert!(!loser.accepted.status);
    let expected = "it decides nothing: TrafficPolicy shop/older, which is older, decides \
                    timeouts; delete it, or take out there what it is to decide";
    assert_eq!(loser.accepted.message, expected);
    let partly = report(&reported, "TrafficPolicy wide");
    assert!(partly.accepted.status);
    assert_eq!(partly.accepted.reason, "PartlyOverridden");
    let warned = warnings(&reported, Accepted);
    assert_eq!(warned.len(), 1, "{warned:?}");
    assert_eq!(warned[0].1, "spec.timeouts");
    let expected = "TrafficPolicy shop/older, whose targetRef is closer, decides this, at some \
                    port at least";
    assert_eq!(warned[0].2, expected);
}

/// To be narrower is no way out for a policy that is that already.
#[test]
fn conflicted_policy_names_winner_and_reason_per_section() {
    let routes = json!([{"kind": "HTTPRouteGroup", "name": "g"}]);
    let narrow = json!({"timeouts": {}, "retry": {}, "routes": routes});
    let at_port = json!({
        "targetRef": {"kind": "Service", "name": "api", "port": 80},
        "timeouts": {}, "priority": "Normal",
    });
    let as_old = json!({"retry": {}, "routes": routes});
    let cluster = shop()
        .with(group("g", json!([{"name": "reads", "methods": ["GET"]}])))
        .with(created(policy("narrow", &narrow), 1))
        .with(created(policy("as-old", &as_old), 1))
        .with(cluster::traffic_policy("closer", at_port));
    let reported = problems(&cluster);
    let accepted = &report(&reported, "TrafficPolicy narrow").accepted;
    assert_eq!(accepted.reason, "Conflicted");
    let expected = "it decides nothing: TrafficPolicy shop/as-old, which is as old and the first \
                    by name, decides retry; TrafficPolicy shop/closer, whose targetRef is closer, \
                    decides timeouts; delete it, or take out there what it is to decide";
    assert_eq!(accepted.message, expected);
    for winner in ["TrafficPolicy as-old", "TrafficPolicy closer"] {
        assert!(report(&reported, winner).accepted.status, "{winner}");
    }
}

/// Whatever is written at the other Service, it does not decide there.
#[test]
fn timeout_overridden_in_own_service_names_other_service() {
    let reads = json!({
        "timeouts": {"request": "2s"}, "routes": [{"kind": "HTTPRouteGroup", "name": "reads"}],
        "sources": [{"kind": "Group", "name": "system:unauthenticated"}],
    });
    let all = json!({"timeouts": {"request": "9s"}});
    let of_second = json!({
        "targetRef": {"kind": "Service", "name": "second"}, "timeouts": {"request": "1s"},
    });
    let one = shop().with(group(
        "reads",
        json!([{"name": "reads", "methods": ["GET"]}]),
    ));
    let two = one
        .clone()
        .with(service("second", "10.96.0.3", &[("http", 90)]))
        .with(slice(
            "second-x",
            "second",
            &[("http", 8080)],
            &[endpoint("api-1", "10.0.0.11")],
        ));
    let overridden = |cluster: Cluster| -> Vec<String> {
        let reported = problems(&cluster);
        let overridden = reported.list.iter();
        let overridden = overridden.filter(|one| one.reason == Reason::PartlyOverridden);
        overridden
            .map(|one| format!("{}: {}", one.object.name, one.message))
            .collect()
    };
    let with_own = |cluster: Cluster| {
        let cluster = cluster.with(policy("reads", &reads));
        cluster.with(policy("all", &all))
    };
    let expected = "reads: TrafficPolicy shop/all, which gives callers outside the mesh the \
                    longest time, decides this at pods that Service shop/second:90 selects as \
                    well: no proxy knows which Service they mean, and not all of them say the \
                    same; let the same policies speak of all";
    let second = cluster::traffic_policy("second", of_second);
    assert_eq!(overridden(with_own(two.clone()).with(second)), [expected]);
    // Control: where there is no other one both hold, and where the same speak of all.
    assert_eq!(overridden(with_own(one)), [""; 0]);
    let of_all = two.with(of_namespace("reads", &reads));
    assert_eq!(overridden(of_all.with(of_namespace("all", &all))), [""; 0]);
}

#[test]
fn missing_reference_suggests_nearest_name() {
    let caller = json!([{"kind": "IdentityBinding", "name": "gone"}]);
    let group = json!([{"kind": "HTTPRouteGroup", "name": "gone"}]);
    for (spec, field, reason, word) in [
        (
            json!({"targetRef": {"kind": "Service", "name": "appi"}, "retry": {}}),
            "spec.targetRef.name",
            Reason::RefNotFound,
            "you may mean api",
        ),
        (
            json!({"targetRef": {"kind": "Service", "name": "api", "port": 81}, "retry": {}}),
            "spec.targetRef.port",
            Reason::PortNotFound,
            "api has no port 81 but 80: a policy names the port that callers use",
        ),
        (
            about_api(&json!({"fallback": {"service": "gone"}})),
            "spec.fallback.service",
            Reason::RefNotFound,
            "there is no fallback",
        ),
        (
            about_api(&json!({"mirror": [{"service": "gone", "percent": 1}]})),
            "spec.mirror[0].service",
            Reason::RefNotFound,
            "no copies are made",
        ),
        (
            about_api(&json!({"overrides": [{"to": ["gone"]}]})),
            "spec.overrides[0].to[0]",
            Reason::RefNotFound,
            "there is no Service gone",
        ),
        (
            about_api(&json!({"retry": {}, "routes": group})),
            "spec.routes[0].name",
            Reason::RefNotFound,
            "there is no HTTPRouteGroup gone",
        ),
        (
            about_api(&json!({"retry": {}, "sources": caller})),
            "spec.sources[0].name",
            Reason::RefNotFound,
            "there is no IdentityBinding shop/gone",
        ),
    ] {
        let reported = problems(&shop().with(cluster::traffic_policy("p", spec)));
        assert_eq!(failures(&reported, ResolvedRefs), [(reason, field)]);
        let text = &report(&reported, "TrafficPolicy p").resolved_refs.message;
        assert!(text.contains(word), "{text}");
        assert!(
            report(&reported, "TrafficPolicy p").accepted.status,
            "{reported:?}"
        );
    }
}

#[test]
fn policy_routing_to_service_without_endpoints_is_warned() {
    let next = service("next", "10.96.0.2", &[("http", 80)]);
    for (section, field) in [
        (
            json!({"fallback": {"service": "next"}}),
            "spec.fallback.service",
        ),
        (
            json!({"mirror": [{"service": "next", "percent": 1, "downstream": "Any"}]}),
            "spec.mirror[0].service",
        ),
        (
            json!({"overrides": [{"to": ["next"]}]}),
            "spec.overrides[0].to[0]",
        ),
    ] {
        let cluster = shop().with(next.clone()).with(policy("p", &section));
        let reported = problems(&cluster);
        let warned = warnings(&reported, Accepted);
        let [(reason, location, words)] = warned[..] else {
            panic!("{warned:?}");
        };
        assert_eq!((reason, location), (Reason::NoEndpoints, field));
        assert!(words.contains("next has no endpoints"), "{words}");
        let accepted = &report(&reported, "TrafficPolicy p").accepted;
        assert_eq!((accepted.status, accepted.reason), (true, "NoEndpoints"));
        let served = problems(&with_next(cluster));
        assert_eq!(warnings(&served, Accepted), []);
    }
}

#[test]
fn mirror_to_writable_pods_is_unguarded_and_not_sent() {
    let mirror = |more: serde_json::Value| {
        let mut one = json!({"service": "next", "percent": 10});
        for (name, value) in more.as_object().unwrap() {
            one[name] = value.clone();
        }
        policy("p", &json!({"mirror": [one]}))
    };
    let shared = slice(
        "two-x",
        "two",
        &[("http", 8080)],
        &[endpoint("next-1", "10.0.0.21")],
    );
    let plain = cluster::plain_pod("next-2", "10.0.0.22", "next");
    let more = slice(
        "next-y",
        "next",
        &[("http", 8080)],
        &[endpoint("next-2", "10.0.0.22")],
    );
    let good = with_next(shop()).with(mirror(json!({})));
    assert_eq!(failures(&problems(&good), Accepted), []);
    assert_eq!(super::client_policy(&good).mirror.rules.len(), 1);
    for (cluster, word) in [
        (
            with_next(shop())
                .with(service("two", "10.96.0.4", &[("http", 80)]))
                .with(shared),
            "another Service selects",
        ),
        (with_next(shop()).with(plain).with(more), "without a proxy"),
        (
            with_next(shop()).with(split("s", "api", &[("next", 1)])),
            "a backend of TrafficSplit shop/s",
        ),
    ] {
        let guarded = cluster.clone().with(mirror(json!({})));
        let reported = problems(&guarded);
        assert_eq!(
            failures(&reported, Accepted),
            [(Reason::NotGuarded, "spec.mirror[0].service")]
        );
        let text = &report(&reported, "TrafficPolicy p").accepted.message;
        assert!(
            text.contains(word) && text.contains("downstream: Any"),
            "{text}"
        );
        let (model, _) = guarded.compile();
        assert!(!super::names(&model, "client").contains(&"policy/shop/api:80".to_owned()));
        let any = cluster.with(mirror(json!({"downstream": "Any"})));
        assert_eq!(failures(&problems(&any), Accepted), []);
    }
    // Nor is what responds in place of others or may be chosen, by whatever policy.
    for (section, word) in [
        (
            json!({"fallback": {"service": "next"}}),
            "is the fallback of TrafficPolicy shop/f",
        ),
        (
            json!({"overrides": [{"to": ["other"]}, {"to": ["other", "next"]}]}),
            "may be chosen by the overrides of TrafficPolicy shop/f",
        ),
    ] {
        let other = service("other", "10.96.0.9", &[("http", 80)]);
        let alone = with_next(shop()).with(other).with(mirror(json!({})));
        assert_eq!(failures(&problems(&alone), Accepted), []);
        let instead = alone.with(policy("f", &section));
        let reported = problems(&instead);
        assert_eq!(
            failures(&reported, Accepted),
            [(Reason::NotGuarded, "spec.mirror[0].service")]
        );
        let text = &report(&reported, "TrafficPolicy p").accepted.message;
        assert!(text.contains(word), "{text}");
        assert!(super::client_policy(&instead).mirror.rules.is_empty());
    }
}

#[test]
fn limits_on_unmeshed_pods_are_reported_as_not_enforced() {
    let limits = policy(
        "p",
        &json!({"rateLimits": [{"name": "l", "requests": 1}], "overload": {}}),
    );
    let cluster = shop().with(limits);
    assert_eq!(warnings(&problems(&cluster), Accepted), []);
    let cluster = cluster.with(cluster::plain_pod("api-1", "10.0.0.11", "api"));
    let reported = problems(&cluster);
    let warned = warnings(&reported, Accepted);
    let fields: Vec<_> = warned
        .iter()
        .map(|(reason, field, _)| (*reason, *field))
        .collect();
    assert_eq!(
        fields,
        [
            (Reason::NotEnforced, "spec.overload"),
            (Reason::NotEnforced, "spec.rateLimits")
        ]
    );
    assert!(report(&reported, "TrafficPolicy p").accepted.status);
}

// Claims: calls-30
#[test]
fn policies_beyond_limit_are_refused_and_reported() {
    let mut many = shop();
    for n in 0..66 {
        let source = json!([{"kind": "ServiceAccount", "name": format!("a{n}")}]);
        let one = policy(
            &format!("p{n:02}"),
            &json!({"retry": {}, "sources": source}),
        );
        many = many.with(created(one, n.min(59)));
    }
    let reported = problems(&many);
    assert_eq!(
        failures(&reported, Accepted),
        [(Reason::Invalid, "spec.targetRef"); 2]
    );
    assert!(!report(&reported, "TrafficPolicy p65").accepted.status);
    assert_eq!(super::client_policy(&many).retry.rules.len(), 64);

    let mut many_more = shop();
    for n in 0..1001 {
        let one = of_namespace(&format!("p{n:04}"), &json!({"retry": {}}));
        many_more = many_more.with(one);
    }
    let reported = problems(&many_more);
    let last = report(&reported, "TrafficPolicy p1000");
    assert_eq!(
        (last.accepted.status, last.accepted.reason),
        (false, "Invalid")
    );
    assert!(
        last.accepted
            .message
            .contains("more than 1000 TrafficPolicies")
    );
    let within = report(&reported, "TrafficPolicy p0999");
    assert!(!within.accepted.message.contains("more than 1000"));
}

#[test]
fn policy_is_origin_of_resources_that_need_it() {
    use policy::name::{Kind, ObjectRef};
    use policy::traffic::part::{Part, Parts};
    let p = ObjectRef::new(Kind::TrafficPolicy, "shop", "p");
    let cluster = shop().with(policy("p", &json!({"retry": {}, "overload": {}})));
    let (model, _) = cluster.compile();
    let protected: Vec<String> = model
        .protected_by(&p)
        .iter()
        .map(ToString::to_string)
        .collect();
    assert_eq!(protected, ["shop/api-1", "shop/api-2"]);
    let through: Vec<String> = model.called_through(&p).into_iter().collect();
    assert_eq!(through, ["destination/10.96.0.1:80"]);
    for (pod, name) in [("client", "policy/shop/api:80"), ("api-1", "guard")] {
        let got = resolve_newest(&model, pod, &["10.96.0.1:80"]);
        assert_eq!(got.published(name).origins, [(p.clone(), 1)], "{pod}");
    }
    // An older proxy is sent nothing of it, and that is known.
    let names = ["destination/10.96.0.1:80".to_owned()].into();
    let set = model.resolve(
        &crate::model::PodId::new("shop", "client"),
        &names,
        &Default::default(),
    );
    let left_out = set.unwrap().left_out;
    let reported: Vec<_> = left_out
        .iter()
        .map(|one| (&one.object, one.generation, one.lacks))
        .collect();
    assert_eq!(reported, [(&p, 1, Parts::of(&[Part::Retry]))]);
}

#[test]
fn policy_change_concerns_only_its_callers_and_pods() {
    let apply = |attempts: u8| {
        with_next(shop()).with(policy(
            "p",
            &json!({"retry": {"attempts": attempts}, "overload": {}}),
        ))
    };
    let defaults = crate::model::Defaults::default();
    let (before, problems) = apply(1).compile();
    let problems = std::sync::Arc::new(problems);
    let (after, _, changes) =
        Model::compile_after(&apply(2).world(), &defaults, &before, &problems);
    let interest = |pod: &str, at: &str| {
        let at = [format!("destination/{at}")];
        after.interest(&crate::model::PodId::new("shop", pod), &at)
    };
    assert!(changes.concern(&interest("client", "10.96.0.1:80")));
    assert!(!changes.concern(&interest("client", "10.96.0.2:80")));
    assert!(!changes.concern(&Interest::default()));
    let (same, _, changes) = Model::compile_after(&apply(2).world(), &defaults, &after, &problems);
    assert!(
        !changes.concern(&interest("client", "10.96.0.1:80")),
        "{same:?}"
    );
}
