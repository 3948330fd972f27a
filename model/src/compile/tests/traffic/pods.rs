//! Pods that several Services select, and callers that come by a split.
//!
//! Claims: calls-32, calls-33, calls-34, calls-49

use policy::{
    access::Source,
    traffic::{
        Sources,
        guard::{Overload, OverloadMode, Priority},
    },
};
use serde_json::{Value, json};

use super::{of_namespace, policy, with_next};
use crate::{
    compile::tests::report,
    fixtures::{self as cluster, Cluster, *},
    problem::Reason,
};

/// `second` selects pods of `api`, on the same port of theirs.
fn with_second(cluster: Cluster) -> Cluster {
    cluster
        .with(service("second", "10.96.0.3", &[("http", 90)]))
        .with(slice(
            "second-x",
            "second",
            &[("http", 8080)],
            &[endpoint("api-1", "10.0.0.11")],
        ))
}

fn of_second(name: &str, fields: &Value) -> Value {
    let mut spec = json!({"targetRef": {"kind": "Service", "name": "second"}});
    for (name, value) in fields.as_object().unwrap() {
        spec[name] = value.clone();
    }
    cluster::traffic_policy(name, spec)
}

/// The `request` that callers from outside have of api-1, in seconds.
fn outside(cluster: &Cluster) -> Option<u64> {
    let resolved = resolve_newest(&cluster.compile().0, "api-1", &[]);
    if !resolved.names().contains(&"guard") {
        return None;
    }
    let guard = resolved.guard();
    super::request(guard.ports.get(&8080)?)
}

#[test]
fn outside_callers_get_max_timeout_of_any_service() {
    let short = policy("short", &json!({"timeouts": {"request": "2s"}}));
    let long = of_second("long", &json!({"timeouts": {"request": "9s"}}));
    let none = of_second("none", &json!({"timeouts": {}}));
    let mesh_only = of_second(
        "inside",
        &json!({"timeouts": {"request": "1s"}, "sources": [{"kind": "ServiceAccount", "name": "web"}]}),
    );
    assert_eq!(outside(&shop().with(short.clone())), Some(2));
    let two = with_second(shop()).with(short.clone());
    assert_eq!(outside(&two), None, "a Service without any policy");
    assert_eq!(outside(&two.clone().with(long.clone())), Some(9));
    assert_eq!(outside(&with_second(shop()).with(long)), None);
    assert_eq!(outside(&two.clone().with(none)), None);
    // It decides nothing about callers from outside.
    assert_eq!(
        outside(&two.with(mesh_only)),
        None,
        "pods are sent nothing of it"
    );
}

/// It is not known which of them such a caller meant.
#[test]
fn outside_callers_at_shared_pods_get_max_route_timeout() {
    let reads = group("reads", json!([{"name": "reads", "methods": ["GET"]}]));
    let routed = |name: &str, time: &str| {
        let routes = json!([{"kind": "HTTPRouteGroup", "name": "reads"}]);
        policy(
            name,
            &json!({"timeouts": {"request": time}, "routes": routes}),
        )
    };
    let all = policy("all", &json!({"timeouts": {"request": "5s"}}));
    let second = of_second("second", &json!({"timeouts": {"request": "10s"}}));
    let one = shop().with(reads).with(routed("reads", "1s"));
    let two = with_second(one.clone()).with(second);
    assert_eq!(outside(&two), None, "the first ends reads alone");
    assert_eq!(outside(&two.clone().with(all.clone())), Some(10));
    let long = with_second(shop())
        .with(group(
            "reads",
            json!([{"name": "reads", "methods": ["GET"]}]),
        ))
        .with(routed("reads", "60s"))
        .with(all.clone())
        .with(of_second(
            "second",
            &json!({"timeouts": {"request": "10s"}}),
        ));
    assert_eq!(outside(&long), Some(60));
    // Control: of one Service each route has its own.
    let guard = resolve_newest(&one.with(all).compile().0, "api-1", &[]).guard();
    assert_eq!(guard.ports[&8080].timeouts.rules.len(), 2);
}

/// They come by no Service at all, so no account may have less than any Service gives it.
#[test]
fn mesh_callers_at_shared_pods_get_max_account_timeout() {
    let web = json!([{"kind": "ServiceAccount", "name": "web"}]);
    let of_web = policy(
        "web",
        &json!({"timeouts": {"request": "60s"}, "sources": web}),
    );
    let both = with_second(shop())
        .with(policy("all", &json!({"timeouts": {"request": "5s"}})))
        .with(of_second("second", &json!({"timeouts": {"request": "9s"}})));
    let rules = |cluster: &Cluster| {
        let guard = resolve_newest(&cluster.compile().0, "api-1", &[]).guard();
        let rules = guard.ports[&8080].timeouts.rules.iter();
        let rules = rules.map(|rule| {
            let scoped = rule.then.clone().unwrap();
            (scoped.sources, scoped.section.request.unwrap().as_secs())
        });
        rules.collect::<Vec<(Sources, u64)>>()
    };
    let only = |source| Sources::Only(vec![source]);
    let expected = [
        (only(Source::Unauthenticated), 9),
        (only(Source::Authenticated), 60),
    ];
    assert_eq!(rules(&both.clone().with(of_web.clone())), expected);
    assert_eq!(rules(&both), [(Sources::Everyone, 9)], "control");
    // Of one Service each account has its own, though no caller outside has any.
    assert_eq!(outside(&shop().with(of_web)), Some(60));
}

/// Its author would take it to be in force: no call by the Service's name has that time.
#[test]
fn outside_only_timeout_overridden_by_other_service_is_reported() {
    let only_outside = json!([{"kind": "Group", "name": "system:unauthenticated"}]);
    let timeouts = json!({"request": "2s"});
    let alone = policy("a", &json!({"timeouts": timeouts, "sources": only_outside}));
    let of_b = |time: &str| of_second("b", &json!({"timeouts": {"request": time}}));
    let cluster = with_second(shop()).with(alone.clone());
    let open = "callers outside the mesh have no such time at pods that Service shop/second:90 \
                selects as well: no proxy knows which Service they mean, and not all of them end \
                every request; write one at each for all requests";
    let longer = "TrafficPolicy shop/b, which gives callers outside the mesh the longest time, \
                  decides this at pods that Service shop/second:90 selects as well; write there \
                  what is to hold at those";
    let with_longer = cluster.clone().with(of_b("9s"));
    for (cluster, time, words) in [(&cluster, None, open), (&with_longer, Some(9), longer)] {
        assert_eq!(outside(cluster), time);
        let expected = (
            Reason::PartlyOverridden,
            "spec.timeouts".to_owned(),
            words.to_owned(),
        );
        assert_eq!(conditions(cluster, "a"), [expected]);
        assert_eq!(conditions(cluster, "b"), []);
        let problems = cluster.compile().1;
        let accepted = &report(&problems, "TrafficPolicy a").accepted;
        assert_eq!(
            (accepted.status, accepted.reason),
            (true, "PartlyOverridden")
        );
    }
    // A policy that has the time there, or has it elsewhere, has no condition.
    let for_all = with_second(shop()).with(policy("a", &json!({"timeouts": timeouts})));
    for cluster in [
        shop().with(alone),
        cluster.clone().with(of_b("1s")),
        cluster.with(of_b("2s")),
        for_all.clone(),
        for_all.with(of_b("9s")),
    ] {
        assert_eq!(conditions(&cluster, "a"), []);
        assert_eq!(conditions(&cluster, "b"), []);
    }
}

#[test]
fn general_priority_of_one_service_keeps_narrower_of_other() {
    let source = json!([{"kind": "ServiceAccount", "name": "job"}]);
    let cluster = with_second(shop())
        .with(policy("all", &json!({"priority": "Critical"})))
        .with(of_second("rest", &json!({"priority": "Normal"})))
        .with(of_second(
            "jobs",
            &json!({"priority": "Sheddable", "sources": source}),
        ));
    let guard = resolve_newest(&cluster.compile().0, "api-1", &[]).guard();
    let rules = guard.ports[&8080].priority.rules.iter();
    let sections: Vec<(&str, Priority)> = rules
        .map(|rule| (&**rule.origin.name(), rule.then.as_ref().unwrap().section))
        .collect();
    assert_eq!(
        sections,
        [("jobs", Priority::Sheddable), ("rest", Priority::Normal)]
    );
}

/// The policy whose `overload` a pod has, and its content.
fn overload(cluster: &Cluster, pod: &str) -> (String, Overload) {
    let guard = resolve_newest(&cluster.compile().0, pod, &[]).guard();
    let [rule] = &guard.ports[&8080].overload.rules[..] else {
        panic!("{guard:?}");
    };
    (rule.origin.name().to_string(), rule.then.unwrap())
}

/// Reasons, fields and messages that the author of a policy reads.
fn conditions(cluster: &Cluster, name: &str) -> Vec<(Reason, String, String)> {
    let problems = cluster.compile().1;
    let of_policy = problems.list.iter().filter(|one| *one.object.name == *name);
    of_policy
        .map(|one| (one.reason, one.field.clone(), one.message.clone()))
        .collect()
}

/// The Services' names do not decide it: `api` comes before `second`.
#[test]
fn older_policy_decides_shared_overload_and_other_is_warned() {
    let capped = json!({"overload": {"maxConcurrency": 10}});
    let of_api = |second| created(policy("a", &json!({"overload": {}})), second);
    let of_other = |second| created(of_second("b", &capped), second);
    for (ages, winner, service, loser, cap) in [
        ([1, 2], "a", "api:80", "b", None),
        ([2, 1], "b", "second:90", "a", Some(10)),
    ] {
        let cluster = with_second(shop())
            .with(of_api(ages[0]))
            .with(of_other(ages[1]));
        let (whose, section) = overload(&cluster, "api-1");
        assert_eq!((&*whose, section.max_concurrency), (winner, cap));
        let expected = format!(
            "TrafficPolicy shop/{winner}, which is older, decides this at pods that Service \
             shop/{service} selects as well; write there what is to hold at those"
        );
        let field = "spec.overload".to_owned();
        let expected = [(Reason::PartlyOverridden, field, expected)];
        assert_eq!(conditions(&cluster, loser), expected);
        assert_eq!(conditions(&cluster, winner), []);
        let problems = cluster.compile().1;
        let accepted = &report(&problems, &format!("TrafficPolicy {loser}")).accepted;
        assert_eq!(
            (accepted.status, accepted.reason),
            (true, "PartlyOverridden")
        );
        // A pod of one Service alone has that one's.
        assert_eq!(overload(&cluster, "api-2").0, "a");
    }
    // A policy that sets the same loses nothing, nor does one that has pods for itself.
    let same = with_second(shop())
        .with(of_api(1))
        .with(of_second("b", &json!({"overload": {}})));
    let next = set(
        capped,
        "/targetRef",
        json!({"kind": "Service", "name": "next"}),
    );
    let apart = with_next(shop())
        .with(of_api(1))
        .with(cluster::traffic_policy("b", next));
    for name in ["a", "b"] {
        assert_eq!(conditions(&same, name), []);
        assert_eq!(conditions(&apart, name), []);
    }
}

/// What no proxy carries out overrides nothing; that is reported as what it is.
#[test]
fn unmeshed_pods_and_skipped_ports_override_no_policy() {
    let plain = plain_pod("api-1", "10.0.0.11", "api");
    let skipping = |ports: &str| {
        let args = json!(["capture", "--skip-inbound-ports", ports]);
        let meshed = pod("api-1", "10.0.0.11", "api");
        set(meshed, "/spec/initContainers/0/args", args)
    };
    let both = with_second(shop())
        .with(created(policy("a", &json!({"overload": {}})), 1))
        .with(created(
            of_second("b", &json!({"overload": {"maxConcurrency": 10}})),
            2,
        ));
    let conditions = |cluster: &Cluster| {
        let conditions = conditions(cluster, "b");
        let reasons = conditions.iter().map(|(reason, ..)| *reason);
        reasons.collect::<Vec<Reason>>()
    };
    for pod in [plain.clone(), skipping("8080")] {
        assert_eq!(conditions(&both.clone().with(pod)), [Reason::NotEnforced]);
    }
    // Control: where a proxy is passed by elsewhere, and at the first meshed pod among others.
    let elsewhere = both.clone().with(skipping("8081"));
    assert_eq!(conditions(&elsewhere), [Reason::PartlyOverridden]);
    let endpoints = [endpoint("api-2", "10.0.0.12")];
    let more = slice("second-y", "second", &[("http", 8080)], &endpoints);
    let conditions = conditions(&both.with(plain).with(more));
    assert!(
        conditions.contains(&Reason::PartlyOverridden),
        "{conditions:?}"
    );
}

/// The Service's name alone would not show either of them where the other one decides.
#[test]
fn overload_conflict_of_two_ports_names_winners_port() {
    let ports = [("http", 80), ("more", 81)];
    let endpoints = [endpoint("api-1", "10.0.0.11")];
    let to = [("http", 8080), ("more", 8080)];
    let both = shop()
        .with(service("api", "10.96.0.1", &ports))
        .with(slice("api-x", "api", &to, &endpoints));
    let of_port = |port: u16, second| {
        let target = json!({"kind": "Service", "name": "api", "port": port});
        let spec = json!({"targetRef": target, "overload": {"maxConcurrency": port}});
        created(cluster::traffic_policy(&format!("p{port}"), spec), second)
    };
    for (ages, winner, loser) in [([1, 2], 80, 81), ([2, 1], 81, 80)] {
        let cluster = both
            .clone()
            .with(of_port(80, ages[0]))
            .with(of_port(81, ages[1]));
        assert_eq!(overload(&cluster, "api-1").0, format!("p{winner}"));
        let conditions = conditions(&cluster, &format!("p{loser}"));
        let [(Reason::PartlyOverridden, _, words)] = &conditions[..] else {
            panic!("{conditions:?}");
        };
        let place = format!(" at pods that Service shop/api:{winner} selects as well; ");
        assert!(words.contains(&place), "{words}");
    }
}

#[test]
fn closer_overload_target_wins_through_any_service() {
    let off = of_second("off", &json!({"overload": {"mode": "Disabled"}}));
    let wide = of_namespace("wide", &json!({"overload": {}}));
    let cluster = with_second(shop())
        .with(created(wide, 1))
        .with(created(off, 2));
    let (whose, section) = overload(&cluster, "api-1");
    assert_eq!((&*whose, section.mode), ("off", OverloadMode::Off));
    let (whose, section) = overload(&cluster, "api-2");
    assert_eq!((&*whose, section.mode), ("wide", OverloadMode::Adaptive));
    assert_eq!(conditions(&cluster, "off"), []);
    // Once: it has lost to the same one at a port as well.
    let conditions = conditions(&cluster, "wide");
    let conditions: Vec<_> = conditions
        .iter()
        .map(|(reason, field, _)| (*reason, &**field))
        .collect();
    assert_eq!(conditions, [(Reason::PartlyOverridden, "spec.overload")]);
}

#[test]
fn lowest_general_priority_wins_and_higher_one_is_warned() {
    let cluster = with_second(shop())
        .with(of_namespace("wide", &json!({"priority": "Sheddable"})))
        .with(of_second("near", &json!({"priority": "Critical"})));
    let guard = resolve_newest(&cluster.compile().0, "api-1", &[]).guard();
    let rules = &guard.ports[&8080].priority.rules;
    assert_eq!((rules.len(), &**rules[0].origin.name()), (1, "wide"));
    let expected = "TrafficPolicy shop/wide, which says the lowest, decides this at pods that \
                    Service shop/api:80 selects as well; write there what is to hold at those";
    let field = "spec.priority".to_owned();
    let expected = [(Reason::PartlyOverridden, field, expected.to_owned())];
    assert_eq!(conditions(&cluster, "near"), expected);
}

#[test]
fn caller_specific_priority_comes_first_with_closer_target() {
    let job = json!([{"kind": "ServiceAccount", "name": "job"}]);
    let of_job = |class: &str| json!({"priority": class, "sources": job});
    let wide = with_second(shop()).with(of_namespace("wide", &of_job("Sheddable")));
    let rules = |cluster: &Cluster| {
        let guard = resolve_newest(&cluster.compile().0, "api-1", &[]).guard();
        let rules = guard.ports[&8080].priority.rules.iter();
        let names = rules.map(|rule| rule.origin.name().to_string());
        names.collect::<Vec<String>>()
    };
    assert_eq!(rules(&wide), ["wide"], "once, by two Services");
    let near = of_second("near", &of_job("Critical"));
    assert_eq!(rules(&wide.with(near)), ["near", "wide"]);
}

#[test]
fn pod_sections_on_split_root_are_reported_as_unenforced() {
    let all = json!({
        "rateLimits": [{"name": "l", "requests": 1}], "overload": {}, "priority": "Critical",
    });
    let mut spec = all.clone();
    spec["targetRef"] = json!({"kind": "Service", "name": "root"});
    let root = with_next(shop()).with(service("root", "10.96.0.7", &[("http", 80)]));
    let written = root.clone().with(cluster::traffic_policy("p", spec));
    let split = split("s", "root", &[("next", 1)]);
    let cluster = written.clone().with(split.clone());
    let warned = conditions(&cluster, "p");
    let fields: Vec<_> = warned
        .iter()
        .map(|(reason, field, _)| (*reason, &**field))
        .collect();
    let expected = ["spec.overload", "spec.priority", "spec.rateLimits"];
    assert_eq!(fields, expected.map(|field| (Reason::NotEnforced, field)));
    for (.., words) in &warned {
        let expected = "Service shop/root has no pods, and a TrafficSplit leads its calls to those \
                        of next, where no proxy enforces it; write a policy about those Services";
        assert_eq!(words, expected);
    }
    let problems = cluster.compile().1;
    let accepted = &report(&problems, "TrafficPolicy p").accepted;
    assert_eq!((accepted.status, accepted.reason), (true, "NotEnforced"));

    // Pods may come to a Service that nothing leads away from.
    assert_eq!(conditions(&written, "p"), []);
    let pods = slice(
        "root-x",
        "root",
        &[("http", 8080)],
        &[endpoint("api-1", "10.0.0.11")],
    );
    assert_eq!(
        conditions(&cluster.with(pods), "p"),
        [],
        "it has pods of its own"
    );
    // It speaks of the backend, too.
    let everywhere = root.with(split).with(of_namespace("p", &all));
    assert_eq!(conditions(&everywhere, "p"), []);
}

#[test]
fn backend_policy_is_needed_by_callers_of_root() {
    use policy::name::{Kind, ObjectRef};
    let spec = json!({"targetRef": {"kind": "Service", "name": "next"}, "breaker": {},
        "fallback": {"service": "second"}});
    let cluster = with_second(with_next(shop()))
        .with(service("second", "10.96.0.3", &[("http", 80)]))
        .with(split("s", "api", &[("next", 1)]))
        .with(cluster::traffic_policy("p", spec));
    let (model, _) = cluster.compile();
    let resolved = resolve_newest(&model, "client", &["10.96.0.1:80"]);
    assert!(resolved.names().contains(&"policy/shop/next:80"));
    // Where calls go instead is in the Service that was called.
    assert!(
        !resolved.names().contains(&"endpoints/shop/second:80"),
        "{:?}",
        resolved.names()
    );
    let p = ObjectRef::new(Kind::TrafficPolicy, "shop", "p");
    let through: Vec<String> = model.called_through(&p).into_iter().collect();
    assert_eq!(
        through,
        ["destination/10.96.0.1:80", "destination/10.96.0.2:80"]
    );
}
