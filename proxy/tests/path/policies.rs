//! Which policy applies to which caller, as the controller has resolved it.
//!
//! Claims: calls-18, calls-39

use std::time::{Duration, Instant};

use policy::access::Source;
use policy::origin::Origin;
use policy::route::{Match, Rule};
use policy::traffic::call::Retry;
use policy::traffic::endpoint::{Balance, Ejection};
use policy::traffic::{EffectivePolicy, Limited, Scoped, Sources};
use wire::v1::{self, Protocol};

use super::answers::{
    App, OK, SILENCE, UNAVAILABLE, ask, limited, policy_of, retries, served_by, sum, whole,
};
use super::deadlines::{by_address, fleet, timeouts};
use super::limits::guarded;
use crate::support::{
    Authority, Pod, endpoint, endpoints, id, pair, raw, resource, service, split, vip,
};

const EJECTIONS: &str = "weft_ejections_total";
/// How fast an endpoint seems after its first answer is chance, and it is chosen by that; a
/// bad first impression lasts for seconds.
const PATIENCE: Duration = Duration::from_secs(60);

const NEVER: Retry = Retry {
    attempts: 0,
    ..Retry::DEFAULT
};

/// Retries for these callers only.
fn for_callers(account: &str, retry: &Retry) -> Limited<Retry> {
    for_source(Source::Identity(id(account)), retry)
}

fn for_source(source: Source, retry: &Retry) -> Limited<Retry> {
    let mut table = limited(());
    let sources = Sources::Only(vec![source]);
    Limited {
        rules: table
            .rules
            .drain(..)
            .map(|rule| Rule {
                origin: rule.origin,
                when: rule.when,
                then: Some(Scoped {
                    sources: sources.clone(),
                    section: retry.clone(),
                }),
            })
            .collect(),
        otherwise: None,
    }
}

#[tokio::test]
async fn policy_applies_only_to_callers_of_named_account() {
    let (client, server, _, _) = pair(Protocol::Http1).await;
    let apps = [
        App::new(server.ip, UNAVAILABLE).await,
        App::new(server.ip, UNAVAILABLE).await,
    ];
    served_by(&client, &server, &[&apps[0], &apps[1]]);
    let request_count = || apps.iter().map(App::request_count).sum::<usize>();
    client.set(vec![policy_of(&EffectivePolicy {
        retry: for_callers("absent", &NEVER),
        ..EffectivePolicy::default()
    })]);
    ask(&client, "GET", "", "").await;
    assert_eq!(
        request_count(),
        2,
        "the default holds: {}",
        client.metrics()
    );
    client.set(vec![policy_of(&EffectivePolicy {
        retry: for_callers("web", &NEVER),
        ..EffectivePolicy::default()
    })]);
    ask(&client, "GET", "", "").await;
    assert_eq!(request_count(), 3);
    assert_eq!(retries(&client, "failure"), 1.0);
}

/// As an IdentityBinding with a selector for pods compiles.
#[tokio::test]
async fn policy_for_pods_applies_by_own_certificates_uid() {
    let authority = Authority::new();
    let client = Pod::of_uid(&authority, "web", "uid-1").await;
    let server = Pod::new(&authority, "api").await;
    client.set(service("api", vip().ip(), Protocol::Http1, Vec::new()));
    let apps = [
        App::new(server.ip, UNAVAILABLE).await,
        App::new(server.ip, UNAVAILABLE).await,
    ];
    served_by(&client, &server, &[&apps[0], &apps[1]]);
    let request_count = || apps.iter().map(App::request_count).sum::<usize>();
    let hold_for = |uid: &str| {
        client.set(vec![policy_of(&EffectivePolicy {
            retry: for_source(Source::pods([uid]), &NEVER),
            ..EffectivePolicy::default()
        })]);
    };
    hold_for("uid-1");
    ask(&client, "GET", "", "").await;
    assert_eq!(request_count(), 1);
    hold_for("uid-2");
    ask(&client, "GET", "", "").await;
    assert_eq!(request_count(), 3, "another pod of the account");
}

/// The policy of calls to `name`.
fn traffic_policy(name: &str, traffic: &EffectivePolicy) -> v1::Resource {
    resource(
        &wire::names::policy("shop", name, 80),
        v1::resource::Content::Policy(wire::convert::policy_message(traffic)),
    )
}

fn ejection(consecutive_failures: u8) -> EffectivePolicy {
    EffectivePolicy {
        ejection: whole(Ejection {
            consecutive_failures,
            ..Ejection::DEFAULT
        }),
        ..EffectivePolicy::default()
    }
}

/// `api` is split to `v2` alone, one of whose three applications fails.
async fn split_to_v2() -> (Pod, Pod, [App; 3]) {
    let (client, server, _, _) = pair(Protocol::Http1).await;
    let apps = [
        App::new(server.ip, UNAVAILABLE).await,
        App::new(server.ip, OK).await,
        App::new(server.ip, OK).await,
    ];
    let all = apps
        .iter()
        .map(|app| endpoint(server.ip, app.port, Some("api")));
    client.set(vec![endpoints("v2", all.collect())]);
    client.set(service(
        "api",
        vip().ip(),
        Protocol::Http1,
        vec![split("s", &[("v2", 1)])],
    ));
    (client, server, apps)
}

/// Asks until `done`, for which chance must choose the failing one often enough.
async fn ask_until(client: &Pod, done: impl Fn() -> bool) {
    let started = Instant::now();
    while !done() {
        assert!(started.elapsed() < PATIENCE, "{}", client.metrics());
        ask(client, "POST", "", "{}").await;
    }
}

#[tokio::test]
async fn split_backends_ejection_policy_overrides_called_services_default() {
    let (client, _server, apps) = split_to_v2().await;
    client.set(vec![traffic_policy("api", &ejection(0))]);
    ask_until(&client, || apps[0].request_count() >= 6).await;
    assert_eq!(sum(&client, EJECTIONS, &[]), 0.0, "the root's word counts");
    // The policy of the serving one differs.
    client.set(vec![traffic_policy("v2", &ejection(3))]);
    ask_until(&client, || sum(&client, EJECTIONS, &[]) > 0.0).await;
}

#[tokio::test]
async fn called_service_of_split_decides_retries() {
    let (client, _server, apps) = split_to_v2().await;
    let retry = |retry| EffectivePolicy {
        retry: limited(retry),
        ..EffectivePolicy::default()
    };
    let many = Retry {
        attempts: 5,
        ..Retry::DEFAULT
    };
    client.set(vec![
        traffic_policy("api", &retry(NEVER)),
        traffic_policy("v2", &retry(many)),
    ]);
    let mut failed = 0;
    while failed == 0 {
        failed += usize::from(ask(&client, "GET", "", "").await.0 == 503);
    }
    assert_eq!(apps[0].request_count(), failed, "no 503 was hidden");
    assert_eq!(sum(&client, "weft_retries_total", &[]), 0.0);
}

/// Of 100 requests sent at once after it came: those that a new endpoint beside another
/// one got.
async fn of_the_new_one(warmup: Option<Duration>) -> usize {
    let (client, server, old, _) = pair(Protocol::Http1).await;
    let new = App::new(server.ip, OK).await;
    if let Some(warmup) = warmup {
        client.set(vec![policy_of(&EffectivePolicy {
            balance: whole(Balance {
                warmup,
                ..Balance::DEFAULT
            }),
            ..EffectivePolicy::default()
        })]);
    }
    ask(&client, "GET", "", "").await;
    let both = [old, new.port].map(|port| endpoint(server.ip, port, Some("api")));
    client.set(vec![endpoints("api", both.to_vec())]);
    for _ in 0..100 {
        assert_eq!(ask(&client, "GET", "", "").await.0, 200);
    }
    new.request_count()
}

#[tokio::test]
async fn new_endpoint_warms_up_for_policy_duration() {
    // Five minutes leave it at a tenth of its share.
    let slow = of_the_new_one(Some(Duration::from_secs(300))).await;
    assert!(slow <= 25, "{slow}");
    // Without, only chance keeps it from about half of them.
    for _ in 0..10 {
        if of_the_new_one(Some(Duration::ZERO)).await > 25 {
            return;
        }
    }
    panic!("a new endpoint gets too little where nothing warms up");
}

#[tokio::test]
async fn enforced_mesh_policy_reaches_every_called_service() {
    let (client, server, _, _) = pair(Protocol::Http1).await;
    let apps = [
        App::new(server.ip, UNAVAILABLE).await,
        App::new(server.ip, UNAVAILABLE).await,
    ];
    let other = std::net::SocketAddr::from(([10, 96, 0, 81], 80));
    let all = |apps: &[App]| {
        let all = apps.iter();
        let all = all.map(|app| endpoint(server.ip, app.port, Some("api")));
        all.collect::<Vec<_>>()
    };
    client.set(vec![
        endpoints("api", all(&apps)),
        endpoints("other", all(&apps)),
    ]);
    client.set(service("other", other.ip(), Protocol::Http1, Vec::new()));
    // Resolved by Service, each with the mesh's policy as its origin.
    let off = EffectivePolicy {
        retry: Limited {
            rules: vec![Rule {
                origin: Origin::new("TrafficPolicy", "weft-system", "no-retries"),
                when: Match::Always,
                then: Some(Scoped {
                    sources: Sources::Everyone,
                    section: NEVER,
                }),
            }],
            otherwise: None,
        },
        ejection: whole(Ejection {
            consecutive_failures: 0,
            ..Ejection::DEFAULT
        }),
        ..EffectivePolicy::default()
    };
    client.set(vec![
        traffic_policy("api", &off),
        traffic_policy("other", &off),
    ]);
    for addr in [vip(), other] {
        let mut stream = client.call(addr).await;
        let request = b"GET / HTTP/1.1\r\nHost: h\r\nConnection: close\r\n\r\n";
        let answer = crate::support::raw(&mut stream, request, Duration::from_secs(10)).await;
        assert!(answer.starts_with("HTTP/1.1 503"), "{answer}");
    }
    assert_eq!(
        apps.iter().map(App::request_count).sum::<usize>(),
        2,
        "one each"
    );
    assert_eq!(sum(&client, "weft_retries_total", &[]), 0.0);
}

/// No rule here is for callers outside the mesh, for which pods received timeouts before.
#[tokio::test]
async fn timeout_at_pod_address_applies_to_named_account() {
    let (client, server, apps) = fleet([SILENCE]).await;
    let addr = by_address(&client, &server, apps[0].port);
    let request = format!("GET / HTTP/1.1\r\nHost: {addr}\r\nConnection: close\r\n\r\n");
    for (account, ends) in [("web", true), ("absent", false)] {
        let mut said = timeouts(Some(300), None);
        let scoped = said.timeouts.rules[0].then.as_mut().unwrap();
        scoped.sources = Sources::Only(vec![Source::Identity(id(account))]);
        let for_pods = said.for_pods();
        server.set(vec![guarded(apps[0].port, for_pods)]);
        let mut stream = client.call(addr).await;
        // A call without a deadline is not waited for.
        let patience = Duration::from_secs(if ends { 10 } else { 1 });
        let answer = raw(&mut stream, request.as_bytes(), patience).await;
        let late = answer.starts_with("HTTP/1.1 504") && answer.contains("weft-reason: deadline");
        assert_eq!(late, ends, "{account}: {answer}");
        assert!(late || answer.is_empty(), "{account}: {answer}");
    }
    assert_eq!(apps[0].request_count(), 2);
}
