//! Requests that select another Service than the one they call: which may, and which may not.
//!
//! Claims: calls-58

use std::sync::Arc;
use std::time::{Duration, Instant};

use http::StatusCode;
use policy::access::Source;
use policy::name::ServiceId;
use policy::overrides::sha256;
use policy::traffic::EffectivePolicy;
use policy::traffic::call::{
    Causes, Fallback, FallbackResponse, FallbackTo, Mirror, Override, Retry, Timeouts, Token,
};
use tokio::io::AsyncWriteExt;
use tokio::net::TcpStream;
use wire::v1::{Enforcement, MtlsMode, Protocol};

use super::answers::{App, OK, SILENCE, SLOW, ask, limited, policy_of, served_by, sum, whole};
use super::mirrors::{header, mirror};
use crate::support::{Authority, Pod, endpoint, endpoints, id, rule, service, vip};

/// "next, please", and its SHA-256.
const TOKEN: &str = "next, please";
const HASH: &str = "a498db27b07870e3ad1168f3bbd6dbbe5f0f5c996f6d916473ee367b97b24a72";
const ROUTE: &str = "weft-route: api=next\r\n";
const NEVER: i64 = i64::MAX;

fn sources(accounts: &[&str]) -> Vec<Source> {
    let all = accounts.iter();
    all.map(|account| Source::Identity(id(account))).collect()
}

fn offered(from: &[&str], forwarders: &[&str], expires: i64) -> EffectivePolicy {
    offered_to(sources(from), forwarders, expires)
}

fn offered_to(from: Vec<Source>, forwarders: &[&str], expires: i64) -> EffectivePolicy {
    let one = Override {
        to: vec![ServiceId::new("shop", "next")],
        sources: from,
        forwarders: sources(forwarders),
        tokens: vec![Token {
            sha256: sha256(HASH).unwrap(),
            expires,
        }],
    };
    EffectivePolicy {
        overrides: whole(vec![one].into()),
        ..EffectivePolicy::default()
    }
}

/// Pods whose calls to `api` go to one application, and by an override to another.
struct Shop {
    authority: Authority,
    api: App,
    next: App,
    server: Pod,
}

impl Shop {
    async fn new() -> Self {
        let authority = Authority::new();
        let server = Pod::new(&authority, "api").await;
        Self {
            api: App::new(server.ip, OK).await,
            next: App::new(server.ip, OK).await,
            authority,
            server,
        }
    }

    async fn pod(&self, account: &str, policy: &EffectivePolicy) -> Pod {
        let pod = Pod::new(&self.authority, account).await;
        pod.set(service("api", vip().ip(), Protocol::Http1, Vec::new()));
        served_by(&pod, &self.server, &[&self.api]);
        let there = endpoint(self.server.ip, self.next.port, Some("api"));
        pod.set(vec![endpoints("next", vec![there])]);
        pod.set(vec![policy_of(policy)]);
        pod
    }

    /// Calls of `pod` with these headers reach the requested Service, or do not.
    async fn goes(&self, pod: &Pod, headers: &str, outcome: Option<&str>) {
        let granted = outcome == Some("granted");
        let before = (self.api.request_count(), self.next.request_count());
        let counted = |outcome: &str| {
            let outcome = format!("outcome=\"{outcome}\"");
            sum(pod, "weft_overrides_total", &[&outcome])
        };
        let counts = outcome.map(counted);
        let (status, answer) = ask(pod, "GET", headers, "").await;
        assert_eq!(status, 200, "{answer}");
        let shown = answer.contains("weft-routed-to: shop/next");
        assert_eq!(shown, granted, "{headers}: {answer}");
        let after = (self.api.request_count(), self.next.request_count());
        let moved = (
            before.0 + usize::from(!granted),
            before.1 + usize::from(granted),
        );
        assert_eq!(after, moved, "{headers}");
        assert_eq!(outcome.map(counted), counts.map(|count| count + 1.0));
    }
}

/// A request that its application has, and does not answer, from any sender.
async fn waiting(app: &App, mut caller: TcpStream, headers: &str) -> (TcpStream, String) {
    let before = app.request_count();
    let head = format!("GET / HTTP/1.1\r\nHost: h\r\n{headers}\r\n");
    caller.write_all(head.as_bytes()).await.unwrap();
    let started = Instant::now();
    while app.request_count() == before {
        assert!(started.elapsed() < Duration::from_secs(5), "it never came");
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
    let head = app.heads().pop().unwrap();
    let name = header(&head, "weft-context");
    let context = name.map(|name| format!("weft-context: {name}\r\n"));
    for hidden in ["weft-route", "weft-proof", TOKEN] {
        assert!(!head.contains(hidden), "{head}");
    }
    (caller, context.unwrap_or_default())
}

#[tokio::test]
async fn application_with_right_or_token_chooses_route() {
    let shop = Shop::new().await;
    let token = format!("{ROUTE}weft-route-token: {TOKEN}\r\n");
    let qa = shop.pod("qa", &offered(&["qa"], &[], NEVER)).await;
    shop.goes(&qa, "", None).await;
    shop.goes(&qa, ROUTE, Some("granted")).await;
    shop.goes(&qa, "weft-route: api=other\r\n", Some("target"))
        .await;
    shop.goes(&qa, "weft-route: other=next\r\n", None).await;
    shop.goes(&qa, "weft-route: api\r\n", Some("unreadable"))
        .await;
    let twice = format!("{ROUTE}{ROUTE}");
    shop.goes(&qa, &twice, Some("unreadable")).await;
    let web = shop.pod("web", &offered(&["qa"], &[], NEVER)).await;
    shop.goes(&web, ROUTE, Some("right")).await;
    shop.goes(&web, &token, Some("granted")).await;
    shop.goes(&web, &token.replace("please", "now"), Some("right"))
        .await;
    web.set(vec![policy_of(&offered(&[], &[], 1))]);
    shop.goes(&web, &token, Some("expired")).await;
    for head in shop.next.heads().into_iter().chain(shop.api.heads()) {
        assert!(!head.contains("weft-ro") && !head.contains(TOKEN), "{head}");
    }
}

#[tokio::test]
async fn route_override_travels_by_context_through_forwarders_only() {
    let shop = Shop::new().await;
    let policy = offered(&["qa"], &["web", "cart"], NEVER);
    let qa = shop.pod("qa", &policy).await;
    for (first, second, outcome) in [
        ("web", "cart", "granted"),
        ("other", "cart", "forwarder"),
        ("web", "other", "forwarder"),
    ] {
        let [first, second] = [
            shop.pod(first, &policy).await,
            shop.pod(second, &policy).await,
        ];
        let apps = [
            App::new(first.ip, SILENCE).await,
            App::new(second.ip, SILENCE).await,
        ];
        // Nothing is offered to the first two, whose calls go on to the next.
        let hop = |to: &Pod, app: &App, account: &str| {
            vec![endpoints(
                "api",
                vec![endpoint(to.ip, app.port, Some(account))],
            )]
        };
        let account = |pod: &Pod| pod.proxy.own.pod.clone();
        qa.set(hop(&first, &apps[0], &account(&first)));
        qa.set(vec![policy_of(&EffectivePolicy::default())]);
        let (_one, context) = waiting(&apps[0], qa.call(vip()).await, ROUTE).await;
        first.set(hop(&second, &apps[1], &account(&second)));
        first.set(vec![policy_of(&EffectivePolicy::default())]);
        let (_two, context) = waiting(&apps[1], first.call(vip()).await, &context).await;
        shop.goes(&second, &context, Some(outcome)).await;
        shop.goes(&second, "", None).await;
    }
}

#[tokio::test]
async fn listed_pods_choose_route_also_behind_next_hop() {
    let shop = Shop::new().await;
    let policy = offered_to(vec![Source::pods(["uid-1"])], &["web"], NEVER);
    for (uid, outcome) in [("uid-1", "granted"), ("uid-2", "right")] {
        let web = shop.pod("web", &policy).await;
        let app = App::new(web.ip, SILENCE).await;
        let qa = Pod::of_uid(&shop.authority, "qa", uid).await;
        qa.set(service("api", vip().ip(), Protocol::Http1, Vec::new()));
        let there = endpoint(web.ip, app.port, Some(&*web.proxy.own.pod));
        qa.set(vec![endpoints("api", vec![there])]);
        // An unlisted token takes nothing away.
        for token in ["", "weft-route-token: old\r\n"] {
            let headers = format!("{ROUTE}{token}");
            let (_kept, context) = waiting(&app, qa.call(vip()).await, &headers).await;
            shop.goes(&web, &context, Some(outcome)).await;
        }
    }
}

#[tokio::test]
async fn outside_caller_needs_token_that_is_not_forwarded() {
    let shop = Shop::new().await;
    let policy = offered(&["qa"], &["web"], NEVER);
    let web = shop.pod("web", &policy).await;
    let app = App::new(web.ip, SILENCE).await;
    for (token, outcome) in [(TOKEN, "granted"), ("wrong", "right"), ("", "right")] {
        let token = match token {
            "" => String::new(),
            token => format!("weft-route-token: {token}\r\n"),
        };
        let caller = web.plain(app.port).await;
        let (_kept, context) = waiting(&app, caller, &format!("{ROUTE}{token}")).await;
        shop.goes(&web, &context, Some(outcome)).await;
    }
}

/// The caller's proxy took it for bytes, and has neither read nor cleaned it.
// Claims: attack-2
#[tokio::test]
async fn override_proof_inside_tunnel_counts_as_from_outside() {
    let shop = Shop::new().await;
    let policy = offered(&["qa"], &["web", "other"], NEVER);
    let web = shop.pod("web", &policy).await;
    let app = App::new(web.ip, SILENCE).await;
    let other = Pod::new(&shop.authority, "other").await;
    other.set(service("api", vip().ip(), Protocol::Opaque, Vec::new()));
    let there = endpoint(web.ip, app.port, Some(&*web.proxy.own.pod));
    other.set(vec![endpoints("api", vec![there])]);
    let route = "weft-route: api.shop=next\r\n";
    for (proof, outcome) in [
        (format!("weft-proof: {}\r\n", id("qa").as_str()), "right"),
        (format!("weft-route-token: {TOKEN}\r\n"), "granted"),
    ] {
        let caller = other.call(vip()).await;
        let (_kept, context) = waiting(&app, caller, &format!("{route}{proof}")).await;
        shop.goes(&web, &context, Some(outcome)).await;
    }
}

/// A policy grants where a call goes, and never that it is taken there.
#[tokio::test]
async fn route_override_does_not_bypass_target_access_rules() {
    let mut shop = Shop::new().await;
    let guarded = Pod::new(&shop.authority, "next").await;
    shop.next = App::new(guarded.ip, OK).await;
    guarded.mode("next", Enforcement::Enforce, MtlsMode::Strict);
    // The first caller and the forwarding one may differ, and the rules apply to the one that
    // calls.
    guarded.set(vec![rule("t", "cart", None, Some(&["/"]))]);
    let policy = offered(&["qa", "cart"], &["web"], NEVER);
    let reaching = async |account: &str| {
        let pod = shop.pod(account, &policy).await;
        let there = endpoint(guarded.ip, shop.next.port, Some("next"));
        pod.set(vec![endpoints("next", vec![there])]);
        pod
    };
    let (qa, web, cart) = (
        reaching("qa").await,
        reaching("web").await,
        reaching("cart").await,
    );
    let first = App::new(web.ip, SILENCE).await;
    let there = endpoint(web.ip, first.port, Some(&*web.proxy.own.pod));
    // `cart` calls through `web`, which no rule names.
    let asks = Pod::new(&shop.authority, "cart").await;
    asks.set(service("api", vip().ip(), Protocol::Http1, Vec::new()));
    asks.set(vec![endpoints("api", vec![there])]);
    let (_kept, context) = waiting(&first, asks.call(vip()).await, ROUTE).await;

    let token = format!("{ROUTE}weft-route-token: {TOKEN}\r\n");
    for (pod, headers) in [
        (&qa, ROUTE),
        (&web, token.as_str()),
        (&web, context.as_str()),
    ] {
        for (method, body) in [("GET", ""), ("POST", "{}")] {
            let granted = || sum(pod, "weft_overrides_total", &["outcome=\"granted\""]);
            let before = granted();
            let (status, answer) = ask(pod, method, headers, body).await;
            assert_eq!(status, 403, "{headers}: {answer}");
            assert!(answer.contains("weft-reason: not-allowed"), "{answer}");
            assert!(answer.contains("weft-routed-to: shop/next"), "{answer}");
            assert_eq!(granted(), before + 1.0, "control: it was led there");
        }
    }
    let seen = (shop.next.request_count(), shop.api.request_count());
    assert_eq!(seen, (0, 0), "nor is it the called Service that answers");
    shop.goes(&cart, ROUTE, Some("granted")).await;
}

#[tokio::test]
async fn overridden_route_without_endpoints_never_uses_called_service() {
    let shop = Shop::new().await;
    let copies = Mirror {
        service: ServiceId::new("shop", "copies"),
        ..mirror()
    };
    let policy = EffectivePolicy {
        mirror: limited(vec![copies].into()),
        ..offered(&["qa"], &[], NEVER)
    };
    let qa = shop.pod("qa", &policy).await;
    shop.goes(&qa, ROUTE, Some("granted")).await;
    assert_eq!(sum(&qa, "weft_mirrored_total", &[]), 0.0, "without copies");
    qa.set(vec![endpoints("next", Vec::new())]);
    for _ in 0..20 {
        let (status, answer) = ask(&qa, "GET", ROUTE, "").await;
        assert_eq!(status, 503, "{answer}");
        assert!(answer.contains("weft-reason: no-endpoint"), "{answer}");
        assert!(answer.contains("weft-routed-to: shop/next"), "{answer}");
    }
    assert_eq!(shop.api.request_count(), 0);
}

#[tokio::test]
async fn overridden_route_ignores_fallback_of_called_service() {
    let shop = Shop::new().await;
    let spare = App::new(shop.server.ip, OK).await;
    let response = FallbackTo::Response(FallbackResponse {
        status: StatusCode::OK,
        headers: Vec::new(),
        body: Arc::from(&b"held"[..]),
    });
    for to in [
        FallbackTo::Service(ServiceId::new("shop", "spare")),
        response,
    ] {
        let on = Causes::ALL;
        let policy = EffectivePolicy {
            fallback: limited(Arc::new(Fallback { to, on })),
            ..offered(&["qa"], &[], NEVER)
        };
        let qa = shop.pod("qa", &policy).await;
        let there = endpoint(shop.server.ip, spare.port, Some("api"));
        qa.set(vec![endpoints("spare", vec![there])]);
        qa.set(vec![endpoints("api", Vec::new())]);
        let instead = ask(&qa, "POST", "", "{}").await;
        assert_eq!(instead.0, 200, "control: {}", instead.1);
        let before = spare.request_count();
        qa.set(vec![endpoints("next", Vec::new())]);
        for method in ["GET", "POST"] {
            let (status, answer) = ask(&qa, method, ROUTE, "").await;
            assert_eq!(status, 503, "{method}: {answer}");
            assert!(answer.contains("weft-routed-to: shop/next"), "{answer}");
            assert!(!answer.contains("weft-degraded"), "{answer}");
        }
        assert_eq!(
            (spare.request_count(), shop.api.request_count()),
            (before, 0)
        );
    }
}

#[tokio::test]
async fn nor_is_time_kept_for_what_will_not_answer() {
    let shop = Shop::new().await;
    let slow = App::new(shop.server.ip, SLOW).await;
    let policy = EffectivePolicy {
        timeouts: limited(Timeouts {
            request: Some(Duration::from_secs(5)),
            backend_request: Some(Duration::from_millis(10)),
            ..Timeouts::DEFAULT
        }),
        retry: limited(Retry {
            attempts: 0,
            ..Retry::DEFAULT
        }),
        fallback: limited(Arc::new(Fallback {
            to: FallbackTo::Service(ServiceId::new("shop", "spare")),
            on: Causes::ALL,
        })),
        ..offered(&["qa"], &[], NEVER)
    };
    let qa = shop.pod("qa", &policy).await;
    let there = endpoint(shop.server.ip, slow.port, Some("api"));
    for name in ["api", "next"] {
        qa.set(vec![endpoints(name, vec![there.clone()])]);
    }
    let (status, answer) = ask(&qa, "GET", "", "").await;
    assert_eq!(status, 504, "control: one attempt ends early: {answer}");
    let (status, answer) = ask(&qa, "GET", ROUTE, "").await;
    assert_eq!(status, 200, "{answer}");
}
