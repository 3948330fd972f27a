//! Which policies take one of the places of a Service, and which none as they decide nothing there.

use std::sync::Arc;

use policy::traffic::bounds::POLICIES_PER_SERVICE;
use serde_json::{Value, json};

use super::{client_policy, of_namespace, policy, request};
use crate::{
    compile::tests::{heavy_group, report},
    fixtures::{Cluster, *},
    model::{Defaults, Model},
    problem::Problems,
    world::collect::Collector,
};

/// So many policies about `api`, each with what `fields` makes of its number.
fn with_many(cluster: Cluster, number: usize, fields: &dyn Fn(usize) -> Value) -> Cluster {
    (0..number).fold(cluster, |cluster, n| {
        cluster.with(policy(&format!("p{n:03}"), &fields(n)))
    })
}

/// Retries for an account of its own, which no other policy decides.
fn for_one_account(n: usize) -> Value {
    let source = json!([{"kind": "ServiceAccount", "name": format!("a{n}")}]);
    json!({"retry": {}, "sources": source})
}

fn for_group(group: &str) -> Value {
    json!([{"kind": "HTTPRouteGroup", "name": group}])
}

/// Comes after all that are about `api`, and sets what none of them sets.
fn wide() -> Value {
    of_namespace("wide", &json!({"timeouts": {"request": "9s"}}))
}

/// Whether a policy is accepted, and why not.
fn accepted(problems: &Problems, name: &str) -> (bool, String) {
    let accepted = &report(problems, &format!("TrafficPolicy {name}")).accepted;
    (accepted.status, accepted.message.clone())
}

#[test]
fn policy_counts_after_63_deciding_ones_but_not_64() {
    for (number, counts) in [
        (POLICIES_PER_SERVICE, false),
        (POLICIES_PER_SERVICE - 1, true),
    ] {
        let cluster = with_many(shop(), number, &for_one_account).with(wide());
        let (status, message) = accepted(&cluster.compile().1, "wide");
        assert_eq!(status, counts, "{number}: {message}");
        let says = message.contains("64 TrafficPolicies come before this one at shop/api");
        assert_eq!(says, !counts, "{message}");
        assert_eq!(request(&client_policy(&cluster)), counts.then_some(9));
    }
}

#[test]
fn ineffective_policies_take_no_place_and_keep_conditions() {
    let no_caller = json!([{"kind": "IdentityBinding", "name": "gone"}]);
    let gone = json!({"retry": {}, "routes": for_group("gone")});
    for (why, fields, reasons) in [
        (
            "no section can be used",
            json!({"timeouts": {"request": "9d"}}),
            ("Invalid", "ResolvedRefs"),
        ),
        ("no request", gone, ("Accepted", "RefNotFound")),
        (
            "no caller",
            json!({"retry": {}, "sources": no_caller}),
            ("Accepted", "RefNotFound"),
        ),
    ] {
        let cluster = with_many(shop(), POLICIES_PER_SERVICE, &|_| fields.clone()).with(wide());
        let (_, problems) = cluster.compile();
        let (status, message) = accepted(&problems, "wide");
        assert!(status && message.is_empty(), "{why}: {message}");
        assert_eq!(request(&client_policy(&cluster)), Some(9), "{why}");
        let one = report(&problems, "TrafficPolicy p063");
        let found = (one.accepted.reason, one.resolved_refs.reason);
        assert_eq!(found, reasons, "{why}: {one:?}");
    }
}

#[test]
fn overridden_policies_count_toward_256_evaluated_but_not_64() {
    const ASKED: usize = 4 * POLICIES_PER_SERVICE;
    for (number, counts) in [
        (POLICIES_PER_SERVICE + 1, true),
        (ASKED - 1, true),
        (ASKED, false),
    ] {
        let cluster = with_many(shop(), number, &|_| json!({"retry": {}})).with(wide());
        let (_, problems) = cluster.compile();
        let (status, message) = accepted(&problems, "wide");
        assert_eq!(status, counts, "{number}: {message}");
        let says = message.contains("256 TrafficPolicies come before this one at shop/api");
        assert_eq!(says, !counts, "{message}");
        assert_eq!(request(&client_policy(&cluster)), counts.then_some(9));
        assert!(accepted(&problems, "p000").0);
        let last = report(&problems, "TrafficPolicy p064");
        assert_eq!(last.accepted.reason, "Conflicted", "{last:?}");
    }
}

#[test]
fn overridden_policies_use_no_bytes_of_port_budget() {
    let path = "x".repeat(900);
    let matches = |letter: char| -> Vec<Value> {
        let regex = |n: u8| format!("/{letter}{n}/{path}");
        let one = |n| json!({"name": format!("m{n}"), "pathRegex": regex(n)});
        (0..56).map(one).collect()
    };
    let big = |group: &str| json!({"routes": for_group(group), "timeouts": {}, "retry": {}, "priority": "Critical"});
    let groups = shop()
        .with(group("one", json!(matches('a'))))
        .with(group("other", json!(matches('b'))));
    // Where each is for an account of its own it decides, and three take all that there is.
    for decide in [false, true] {
        let fields = |n: usize| {
            let all = big("one");
            if decide {
                set(all, "/sources", for_one_account(n)["sources"].clone())
            } else {
                all
            }
        };
        let cluster = with_many(groups.clone(), 6, &fields);
        let cluster = cluster.with(created(policy("late", &big("other")), 1));
        let (_, problems) = cluster.compile();
        let (status, message) = accepted(&problems, "late");
        assert_eq!(status, !decide, "{message}");
        assert_eq!(message.contains("512 KiB of shop/api:80"), decide);
        if !decide {
            let lost = report(&problems, "TrafficPolicy p005");
            assert_eq!(lost.accepted.reason, "Conflicted", "{lost:?}");
        }
    }
}

/// The proxy of every caller holds them. It compiles those of one group once, however many policies
/// name it, and four groups are as much as there may be.
#[test]
fn expressions_beyond_the_bound_cost_the_last_policy() {
    let names = ["a", "b", "c", "d", "e"];
    let groups = names.map(heavy_group);
    let groups = groups.into_iter().fold(shop(), Cluster::with);
    let groups = groups.with(group("light", json!([{"name": "m", "pathRegex": "/x"}])));
    let of_group = |name: &str, group: &str, n: usize| {
        let fields = set(for_one_account(n), "/routes", for_group(group));
        policy(name, &fields)
    };
    let shared = (0..8).map(|n| of_group(&format!("shared{n}"), "a", n));
    let apart = names
        .iter()
        .map(|name| of_group(&format!("t-{name}"), name, 9));
    let cluster = shared.chain(apart).fold(groups, Cluster::with);
    let all: Vec<Value> = names
        .iter()
        .map(|name| for_group(name)[0].clone())
        .collect();
    let cluster = cluster
        .with(of_group("u-light", "light", 10))
        .with(policy("v-whole", &json!({"timeouts": {}, "routes": all})));
    let (_, problems) = cluster.compile();
    let counting = ["shared0", "shared7", "t-a", "t-d", "u-light"];
    for name in counting {
        let (status, message) = accepted(&problems, name);
        assert!(status, "{name}: {message}");
    }
    let (status, message) = accepted(&problems, "t-e");
    assert!(!status);
    let words = "name expressions of shop/api:80 that take more than 16 MiB when compiled";
    assert!(message.contains(words), "{message}");
    let (status, message) = accepted(&problems, "v-whole");
    assert!(!status);
    let words = "spec.routes: name matches whose expressions take more than 16 MiB";
    assert!(message.contains(words), "{message}");
}

#[test]
fn created_group_gives_policy_place_and_deletion_removes_it() {
    let later = json!({"routes": for_group("later"), "timeouts": {"request": "3s"}});
    let cluster = with_many(shop(), POLICIES_PER_SERVICE, &for_one_account);
    let cluster = cluster.with(policy("grouped", &later));
    let group = group("later", json!([{"name": "m", "pathRegex": "/a"}]));
    let mut collector = Collector::default();
    for object in cluster.objects() {
        apply(&mut collector, object);
    }
    let defaults = Defaults::default();
    let (mut model, problems) = Model::compile(&collector.world(), &defaults);
    let mut problems = Arc::new(problems);
    let last = "p063";
    assert!(accepted(&problems, last).0, "the control");
    for there in [true, false] {
        if there {
            apply(&mut collector, &group);
        } else {
            delete(&mut collector, &group);
        }
        let world = collector.world();
        (model, problems, _) = Model::compile_after(&world, &defaults, &model, &problems);
        let (status, message) = accepted(&problems, last);
        assert_eq!(status, !there, "{message}");
        let grouped = report(&problems, "TrafficPolicy grouped");
        assert_eq!(grouped.resolved_refs.status, there, "{grouped:?}");
        let effective = resolve_newest(&model, "client", &["10.96.0.1:80"]).policy("shop/api:80");
        assert_eq!(request(&effective), there.then_some(3));
        let (_, from_nothing) = Model::compile(&world, &defaults);
        assert!(*problems == from_nothing);
    }
}
