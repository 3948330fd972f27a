//! What page `/traffic` shows, what it keeps to itself, and how long it gets.
//!
//! Claims: calls-19, observe-106

use std::time::Duration;

use http::StatusCode;
use http::header::{AUTHORIZATION, HeaderValue};
use policy::health::HealthSignal;
use policy::name::ServiceId;
use policy::origin::Origin;
use policy::route::{Match, Rule, Table};
use policy::traffic::call::{
    Causes, Fallback, FallbackResponse, FallbackTo, Override, Timeouts, Token,
};
use policy::traffic::endpoint::{Breaker, BreakerState};
use policy::traffic::guard::Priority;
use policy::traffic::{EffectivePolicy, Limited, Scoped, Sources, Whole};
use wire::v1;
use wire::v1::resource::Content;

use super::*;
use crate::endpoints::circuit::DecidedBy;
use crate::endpoints::learned::Latency;
use crate::endpoints::registry::Registry;

fn origin() -> Origin {
    Origin::new("TrafficPolicy", "shop", "calls")
}

fn table<T>(then: T, when: Match) -> Table<Option<T>> {
    Table {
        rules: vec![Rule {
            origin: origin(),
            when,
            then: Some(then),
        }],
        otherwise: None,
    }
}

fn whole<T>(section: T) -> Whole<T> {
    table(section, Match::Always)
}

fn limited<T>(section: T, when: Match) -> Limited<T> {
    let sources = Sources::Everyone;
    table(Scoped { sources, section }, when)
}

fn resource(name: &str, content: Content) -> v1::Resource {
    wire::version::stamp(v1::Resource {
        name: name.to_owned(),
        version: String::new(),
        content: Some(content),
    })
}

fn endpoints_of(name: &str, count: u8) -> v1::Resource {
    let endpoint = |last: u8| v1::Endpoint {
        ip: format!("10.0.0.{last}"),
        port: 80,
        namespace: "shop".to_owned(),
        pod: format!("{name}-{last}"),
        ..v1::Endpoint::default()
    };
    let list = v1::Endpoints {
        endpoints: (1..=count).map(endpoint).collect(),
        ..v1::Endpoints::default()
    };
    let name = wire::names::endpoints("shop", name, 80);
    resource(&name, Content::Endpoints(list))
}

/// An address of a pod of headless Service `api`.
fn pod_of_api() -> v1::Resource {
    let endpoint = v1::Endpoint {
        ip: "10.0.0.1".to_owned(),
        port: 80,
        ..v1::Endpoint::default()
    };
    let pod = v1::PodTarget {
        endpoint: Some(endpoint),
        headless: vec![v1::Headless {
            service: wire::names::service("shop", "api", 80),
            hosts: vec!["api.shop".to_owned()],
        }],
        ..v1::PodTarget::default()
    };
    let name = wire::names::destination("10.0.0.1".parse().unwrap(), 80);
    let target = Some(v1::destination::Target::Pod(pod));
    resource(&name, Content::Destination(v1::Destination { target }))
}

fn policy_of(traffic: &EffectivePolicy) -> v1::Resource {
    let message = wire::convert::policy_message(traffic);
    let name = wire::names::policy("shop", "api", 80);
    resource(&name, Content::Policy(message))
}

fn snapshot(set: Vec<v1::Resource>) -> Snapshot {
    let batch = v1::Batch {
        set,
        ..v1::Batch::default()
    };
    let (snapshot, refused) = Snapshot::default().after(batch, &Registry::default());
    assert!(refused.is_empty(), "{refused:?}");
    snapshot
}

fn read(snapshot: &Snapshot, services: &str) -> Value {
    serde_json::from_str(&page(snapshot, services)).unwrap()
}

#[test]
fn page_paths_are_distinguished_from_all_others() {
    assert_eq!(requested_services("/traffic"), Some(""));
    assert_eq!(
        requested_services("/traffic/shop/api:80"),
        Some("shop/api:80")
    );
    assert_eq!(requested_services("/traffics"), None);
    assert_eq!(requested_services("/config"), None);
}

#[test]
fn section_is_shown_with_its_policy_or_default() {
    let some = Match::AnyOf(Vec::new());
    let retry = Retry {
        attempts: 3,
        ..Retry::DEFAULT
    };
    let timeouts = Timeouts {
        request: Some(Duration::from_secs(10)),
        ..Timeouts::DEFAULT
    };
    let snapshot = snapshot(vec![
        endpoints_of("api", 1),
        policy_of(&EffectivePolicy {
            timeouts: limited(timeouts, Match::Always),
            retry: limited(retry, some),
            ..EffectivePolicy::default()
        }),
    ]);
    let page = read(&snapshot, "");
    let sections = &page["services"]["shop/api:80"]["sections"];
    let all = sections.as_object().unwrap().keys().map(String::as_str);
    let wanted = BTreeSet::from(["balance", "ejection", "retry", "timeouts"]);
    assert_eq!(all.collect::<BTreeSet<_>>(), wanted);
    let timeouts = &sections["timeouts"];
    assert_eq!(timeouts[0]["from"], "TrafficPolicy shop/calls");
    assert_eq!(timeouts[0]["says"]["request"], "10s");
    assert_eq!(timeouts[0]["says"]["idle"], "0s");
    assert_eq!(timeouts[1], Value::Null, "nothing holds for the others");
    let retries = sections["retry"].as_array().unwrap();
    let shown = |at: usize, field: &str| retries[at][field].clone();
    assert_eq!(shown(0, "someRequestsOnly"), true);
    assert_eq!(shown(0, "says")["attempts"], 3);
    assert_eq!(shown(1, "from"), "without any policy");
    assert_eq!(shown(1, "says")["attempts"], 1);
    assert_eq!(sections["balance"][0]["says"]["warmup"], "10s");
}

#[tokio::test(start_paused = true)]
async fn headless_service_has_retries_and_ejection_only_by_policy() {
    let shown = |policy: Option<EffectivePolicy>, service: &str| {
        let both = ["api", "web"].map(|name| endpoints_of(name, 2));
        let others = policy.iter().map(policy_of).chain([pod_of_api()]);
        let snapshot = snapshot(both.into_iter().chain(others).collect());
        let rests = |name: &str| {
            let set = snapshot.endpoints_of(&format!("endpoints/shop/{name}:80"));
            for _ in 0..without_object::EJECTION.consecutive_failures {
                let mut call = set.unwrap().endpoints[0].begin();
                let signal = Some(HealthSignal::Unreachable);
                let by = &without_object::EJECTION;
                let _ = set.unwrap().record(&mut call, Latency::Failed, signal, by);
            }
        };
        rests("api");
        rests("web");
        let page = read(&snapshot, "")["services"][service].clone();
        let sections = page["sections"].as_object().unwrap().keys().cloned();
        let headless = page["headless"] == true;
        let first = page["endpoints"][0]["state"].clone();
        (headless, sections.collect::<BTreeSet<_>>(), first)
    };
    let wanted = |headless: bool, sections: &[&str], first: &str| {
        let sections = sections.iter().map(|one| (*one).to_owned());
        let sections = sections.collect::<BTreeSet<String>>();
        (headless, sections, Value::from(first))
    };
    let all = ["balance", "ejection", "retry"];
    assert_eq!(shown(None, "shop/web:80"), wanted(false, &all, "Resting"));
    let alone = wanted(true, &["balance"], "Working");
    assert_eq!(shown(None, "shop/api:80"), alone);
    for policy in [
        EffectivePolicy {
            retry: limited(Retry::DEFAULT, Match::Always),
            ..EffectivePolicy::default()
        },
        EffectivePolicy {
            ejection: whole(Ejection::DEFAULT),
            ..EffectivePolicy::default()
        },
    ] {
        let shown = shown(Some(policy), "shop/api:80");
        assert_eq!(shown, wanted(true, &all, "Resting"));
    }
    let breaker = EffectivePolicy {
        breaker: whole(Breaker::DEFAULT),
        ..EffectivePolicy::default()
    };
    let with_breaker = wanted(true, &["balance", "breaker"], "Working");
    assert_eq!(shown(Some(breaker), "shop/api:80"), with_breaker);
}

/// One endpoint of three cannot be connected, one is busy, and the policy opens the breaker.
#[tokio::test(start_paused = true)]
async fn page_shows_breakers_budget_and_endpoints_as_currently_applied() {
    let breaker = Breaker {
        state: BreakerState::Open,
        ..Breaker::DEFAULT
    };
    let snapshot = snapshot(vec![
        endpoints_of("api", 3),
        policy_of(&EffectivePolicy {
            breaker: whole(breaker),
            ..EffectivePolicy::default()
        }),
    ]);
    let set = snapshot.endpoints_of("endpoints/shop/api:80").unwrap();
    let ejection = &without_object::EJECTION;
    for _ in 0..ejection.consecutive_failures {
        let mut call = set.endpoints[1].begin();
        let signal = Some(HealthSignal::Unreachable);
        let _ = set.record(&mut call, Latency::Failed, signal, ejection);
    }
    let _in_flight = set.endpoints[2].begin();
    set.endpoints[2].record_load(70);
    let now = tokio::time::Instant::now().into_std();
    for _ in 0..10 {
        set.budget.save(now, &without_object::RETRY.budget);
    }
    let by = DecidedBy {
        service: "shop/api".into(),
        port: 80,
    };
    // What ended had been let in by the same state.
    let _ = set.circuits.admit(&by, &breaker);
    let _ = set
        .circuits
        .record(&by, &breaker, crate::endpoints::learned::now(), true);
    let page = read(&snapshot, "shop/api");
    let service = &page["services"]["shop/api:80"];
    assert_eq!(service["budget"]["saved"], 2, "a fifth of ten");
    assert_eq!(service["throttled"], false);
    let none = json!({"Critical": 0, "Normal": 0, "Sheddable": 0});
    assert_eq!(service["throttledPercent"], none);
    let wanted = json!({"policyOf": "shop/api:80", "state": "Open", "requests": 1, "failures": 1});
    assert_eq!(service["breakers"], json!([wanted]));
    let endpoints = service["endpoints"].as_array().unwrap();
    let resting = &endpoints[0];
    assert_eq!(resting["address"], "10.0.0.2:80");
    assert_eq!(resting["pod"], "shop/api-2");
    assert_eq!(resting["state"], "Resting");
    assert_eq!(resting["answers"], 5);
    assert_eq!(resting["failures"], 5);
    let busy = endpoints.iter().find(|one| one["load"] == 70).unwrap();
    assert_eq!(busy["address"], "10.0.0.3:80");
    assert_eq!(busy["state"], "Working");
    assert_eq!(busy["sharePercent"], 100);
    assert_eq!(busy["inFlight"], 1);
}

#[tokio::test(start_paused = true)]
async fn share_that_is_held_back_is_shown_by_class() {
    let snapshot = snapshot(vec![endpoints_of("api", 1)]);
    let set = snapshot.endpoints_of("endpoints/shop/api:80").unwrap();
    for _ in 0..300 {
        set.throttle.record(now(), Priority::Normal, false, true);
    }
    tokio::time::advance(Duration::from_secs(6)).await;
    for _ in 0..100 {
        let _ = set.throttle.admit(now(), Priority::Normal, 0);
    }
    let page = read(&snapshot, "shop/api");
    let service = &page["services"]["shop/api:80"];
    assert_eq!(service["throttled"], true);
    let wanted = json!({"Critical": 0, "Normal": 100, "Sheddable": 0});
    assert_eq!(service["throttledPercent"], wanted);
}

#[test]
fn page_hides_fallback_responses_and_token_hashes() {
    let fallback = Fallback {
        to: FallbackTo::Response(FallbackResponse {
            status: StatusCode::OK,
            headers: vec![(AUTHORIZATION, HeaderValue::from_static("key-of-shop"))],
            body: (*b"secret-body").into(),
        }),
        on: Causes::ALL,
    };
    let token = Token {
        sha256: [0xab; 32],
        expires: 2_000_000_000,
    };
    let granted = Override {
        to: vec![ServiceId::new("shop", "next")],
        sources: Vec::new(),
        forwarders: Vec::new(),
        tokens: vec![token],
    };
    let snapshot = snapshot(vec![policy_of(&EffectivePolicy {
        fallback: limited(fallback.into(), Match::Always),
        overrides: whole([granted].into()),
        ..EffectivePolicy::default()
    })]);
    let text = page(&snapshot, "");
    for secret in ["key-of-shop", "authorization", "secret-body", "abab", "171"] {
        assert!(!text.contains(secret), "{secret}: {text}");
    }
    let page: Value = serde_json::from_str(&text).unwrap();
    let sections = &page["services"]["shop/api:80"]["sections"];
    assert_eq!(sections["fallback"][0]["says"]["response"]["status"], 200);
    let shown = &sections["overrides"][0]["says"][0];
    assert_eq!(shown["to"], json!(["shop/next"]));
    assert_eq!(shown["tokens"], 1);
}

#[test]
fn page_is_bounded_and_skipped_services_can_be_queried() {
    const SERVICES: usize = 300;
    let name = |number: usize| format!("s{number:03}");
    let set = (0..SERVICES).map(|number| endpoints_of(&name(number), 250));
    let snapshot = snapshot(set.collect());
    let text = page(&snapshot, "");
    assert!(text.len() < MOST_BYTES + 100, "{}", text.len());
    let all: Value = serde_json::from_str(&text).unwrap();
    let shown = all["services"].as_object().unwrap().len();
    let left_out = all["servicesLeftOut"].as_u64().unwrap();
    assert!(shown > 1 && left_out > 0, "{shown} {left_out}");
    assert_eq!(shown as u64 + left_out, SERVICES as u64);
    let last = &read(&snapshot, "shop/s299")["services"]["shop/s299:80"];
    assert_eq!(last["endpoints"].as_array().unwrap().len(), MOST_ENDPOINTS);
    assert_eq!(last["endpointsLeftOut"], 50);
    let by_port = read(&snapshot, "shop/s299:80");
    assert_eq!(by_port["services"].as_object().unwrap().len(), 1);
    let half_a_name = read(&snapshot, "shop/s29");
    assert_eq!(half_a_name["services"], json!({}));
}
