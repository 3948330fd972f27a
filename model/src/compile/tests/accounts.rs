//! Service accounts that targets, bindings and policies name.
//!
//! Claims: observe-111

use std::sync::Arc;

use serde_json::{Value, json};

use super::{failures, report};
use crate::{
    fixtures::*,
    model::{Defaults, Model},
    problem::{
        ConditionType::{Accepted, ResolvedRefs},
        Reason::NoSuchAccount,
    },
};

/// A target, of which both ends are misspelt.
fn misspelt() -> Value {
    let rules = json!([{"kind": "TCPRoute", "name": "ports"}]);
    target("t", "apii", &["webb"], rules)
}

/// The shop with that target, and these accounts.
fn with(accounts: &[&str]) -> Cluster {
    let cluster = shop().with(tcp_route("ports", &[8080])).with(misspelt());
    accounts
        .iter()
        .fold(cluster, |cluster, name| cluster.with(service_account(name)))
}

#[test]
fn missing_account_is_reported_until_it_exists() {
    let (_, problems_now) = with(&["api", "web"]).compile();
    let both = [
        (NoSuchAccount, "spec.destination.name"),
        (NoSuchAccount, "spec.sources[0].name"),
    ];
    assert_eq!(failures(&problems_now, ResolvedRefs), both);
    assert!(failures(&problems_now, Accepted).is_empty());
    let resolved = &report(&problems_now, "TrafficTarget t").resolved_refs;
    assert_eq!((resolved.status, resolved.reason), (false, "NoSuchAccount"));
    for words in [
        "there is no ServiceAccount shop/apii: create it, or correct the name; you may mean api",
        "there is no ServiceAccount shop/webb: create it, or correct the name; you may mean web",
    ] {
        assert!(resolved.message.contains(words), "{}", resolved.message);
    }
    // Control: accounts that are there, and a cluster whose accounts are not known.
    for accounts in [&["apii", "webb"][..], &[]] {
        let (_, problems_now) = with(accounts).compile();
        assert!(
            failures(&problems_now, ResolvedRefs).is_empty(),
            "{accounts:?}"
        );
    }
}

#[test]
fn accounts_of_another_namespace_are_not_suggested() {
    let elsewhere = set(misspelt(), "/spec/sources/0/namespace", json!("bank"));
    let cluster = with(&["apii"])
        .with(elsewhere)
        .with(in_namespace(service_account("web"), "bank"));
    let (_, problems_now) = cluster.compile();
    let resolved = &report(&problems_now, "TrafficTarget t").resolved_refs;
    assert!(resolved.message.contains("bank/webb"), "{resolved:?}");
    assert!(!resolved.message.contains("you may mean"), "{resolved:?}");
}

#[test]
fn bindings_and_policies_name_accounts_too() {
    let account = json!({"serviceAccount": "webb"});
    let ids = json!({"spiffeIdentities": ["cluster.local/ns/shop/sa/jobb"]});
    let sources = json!([{"kind": "ServiceAccount", "name": "webb", "namespace": "shop"}]);
    let policy = json!({"targetRef": {"kind": "Service", "name": "api"}, "sources": sources,
        "timeouts": {"request": "7s"}});
    let cluster = shop()
        .with(service_account("web"))
        .with(binding("account", account))
        .with(binding("ids", ids))
        .with(traffic_policy("calls", policy));
    let (_, problems_now) = cluster.compile();
    let fields = [
        (NoSuchAccount, "spec.schemes.serviceAccount"),
        (NoSuchAccount, "spec.schemes.spiffeIdentities[0]"),
        (NoSuchAccount, "spec.sources[0].name"),
    ];
    let mut found = failures(&problems_now, ResolvedRefs);
    found.sort_unstable();
    assert_eq!(found, fields);
}

#[test]
fn account_changes_are_reported_by_every_compile_path() {
    let worlds = [
        with(&["api", "web"]),
        // Named by nothing.
        with(&["api", "web", "other"]),
        with(&["api", "web", "webb"]),
        with(&["api", "web"]),
    ];
    let defaults = Defaults::default();
    let (mut model, first) = worlds[0].compile();
    let mut problems = Arc::new(first);
    for cluster in &worlds {
        let world = cluster.world();
        let (next, problems_now, _) = Model::compile_after(&world, &defaults, &model, &problems);
        assert_eq!(*problems_now, Model::compile(&world, &defaults).1);
        (model, problems) = (next, problems_now);
    }
}
