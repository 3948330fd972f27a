//! Tenants: how the proxy recognizes one, and which backend and endpoint it keeps.
//!
//! Claims: calls-57

use std::collections::BTreeMap;
use std::time::Duration;

use http::HeaderName;
use policy::traffic::EffectivePolicy;
use policy::traffic::call::{Sticky, StickyKey, StickyScope};
use tokio::io::AsyncWriteExt;
use wire::v1::{self, Protocol};

use super::answers::{App, OK, ask, policy_of, served_by, whole};
use crate::support::{
    Authority, Pod, endpoint, endpoints, http_app, pair, raw, service, split, vip,
};

const APPS: usize = 5;

fn sticky(key: StickyKey, scope: StickyScope) -> EffectivePolicy {
    EffectivePolicy {
        sticky: whole(Sticky {
            key,
            scope,
            ttl: None,
        }),
        ..EffectivePolicy::default()
    }
}

fn by_header(scope: StickyScope) -> EffectivePolicy {
    sticky(
        StickyKey::Header(HeaderName::from_static("x-tenant")),
        scope,
    )
}

fn tenant(of: usize) -> String {
    format!("x-tenant: t{of}\r\n")
}

/// Two callers of `api`; its applications run in one pod.
struct Shop {
    callers: [Pod; 2],
    server: Pod,
    apps: Vec<App>,
}

impl Shop {
    async fn new() -> Self {
        let authority = Authority::new();
        let callers = [
            Pod::new(&authority, "web").await,
            Pod::new(&authority, "cart").await,
        ];
        let server = Pod::new(&authority, "api").await;
        let mut apps = Vec::new();
        for _ in 0..APPS {
            apps.push(App::new(server.ip, OK).await);
        }
        for caller in &callers {
            caller.set(service("api", vip().ip(), Protocol::Http1, Vec::new()));
            served_by(caller, &server, &apps.iter().collect::<Vec<_>>());
        }
        Self {
            callers,
            server,
            apps,
        }
    }

    fn apply_policy(&self, traffic: &EffectivePolicy) {
        for caller in &self.callers {
            caller.set(vec![policy_of(traffic)]);
        }
    }

    /// The application that a call with these headers comes to.
    async fn serves(&self, caller: &Pod, headers: &str) -> usize {
        let before: Vec<usize> = self.apps.iter().map(App::request_count).collect();
        let (status, answer) = ask(caller, "GET", headers, "").await;
        assert_eq!(status, 200, "{answer}");
        let mut after = self.apps.iter().map(App::request_count).zip(before);
        after.position(|(now, before)| now > before).unwrap()
    }

    /// Where each of so many tenants goes.
    async fn where_they_go(&self, caller: &Pod, tenants: usize) -> Vec<usize> {
        let mut served_at = Vec::new();
        for of in 0..tenants {
            served_at.push(self.serves(caller, &tenant(of)).await);
        }
        served_at
    }
}

#[tokio::test]
async fn tenant_keeps_endpoint_across_callers_and_moves_alone() {
    let shop = Shop::new().await;
    let [web, cart] = &shop.callers;
    shop.apply_policy(&by_header(StickyScope::Endpoint));
    let served_at = shop.where_they_go(web, 30).await;
    assert_eq!(shop.where_they_go(web, 30).await, served_at);
    assert_eq!(
        shop.where_they_go(cart, 30).await,
        served_at,
        "proxies agree"
    );
    let used: std::collections::BTreeSet<_> = served_at.iter().collect();
    assert!(used.len() >= 4, "{served_at:?}");
    // One endpoint goes: its own tenants move, and come back with it.
    let gone = served_at[0];
    let all = shop.apps.iter().enumerate();
    let left = all.filter(|(at, _)| *at != gone).map(|(_, app)| app);
    served_by(web, &shop.server, &left.collect::<Vec<_>>());
    for (before, now) in served_at.iter().zip(shop.where_they_go(web, 30).await) {
        assert!(
            now != gone && (*before == gone || *before == now),
            "{before} {now}"
        );
    }
    served_by(web, &shop.server, &shop.apps.iter().collect::<Vec<_>>());
    assert_eq!(shop.where_they_go(web, 30).await, served_at);
}

#[tokio::test]
async fn who_names_no_tenant_goes_where_it_went_without() {
    let shop = Shop::new().await;
    let web = &shop.callers[0];
    for headers in ["", "x-tenant: t1\r\n"] {
        // Without a policy the header has no effect either.
        if headers.is_empty() {
            shop.apply_policy(&by_header(StickyScope::Endpoint));
        } else {
            web.replace(&wire::names::policy("shop", "api", 80), Vec::new());
        }
        let mut used = std::collections::BTreeSet::new();
        for _ in 0..50 {
            used.insert(shop.serves(web, headers).await);
        }
        assert!(used.len() > 1, "{headers}: {used:?}");
    }
}

#[tokio::test]
async fn tenants_come_before_the_session_affinity_of_their_service() {
    let shop = Shop::new().await;
    let web = &shop.callers[0];
    let mut with_affinity = service("api", vip().ip(), Protocol::Http1, Vec::new());
    for resource in &mut with_affinity {
        if let Some(v1::resource::Content::Service(service)) = &mut resource.content {
            service.affinity_seconds = 600;
        }
    }
    web.set(with_affinity);
    let kept = shop.where_they_go(web, 20).await;
    assert!(
        kept.iter().all(|at| *at == kept[0]),
        "one pod calls: {kept:?}"
    );
    shop.apply_policy(&by_header(StickyScope::Endpoint));
    let kept = shop.where_they_go(web, 20).await;
    assert!(kept.iter().any(|at| *at != kept[0]), "{kept:?}");
    assert_eq!(shop.where_they_go(web, 20).await, kept);
}

/// `api` is split between two Services of one endpoint each; of so many tenants, those of
/// the first.
async fn of_the_first(shop: &Shop, weights: [u32; 2], tenants: usize) -> Vec<bool> {
    let web = &shop.callers[0];
    let splits = vec![split("s", &[("v1", weights[0]), ("v2", weights[1])])];
    let there = |at: usize| vec![endpoint(shop.server.ip, shop.apps[at].port, Some("api"))];
    web.set(vec![endpoints("v1", there(0)), endpoints("v2", there(1))]);
    web.set(service("api", vip().ip(), Protocol::Http1, splits));
    let served_at = shop.where_they_go(web, tenants).await;
    served_at.into_iter().map(|at| at == 0).collect()
}

#[tokio::test]
async fn growing_weight_gains_tenants_and_returns_none() {
    let shop = Shop::new().await;
    shop.apply_policy(&by_header(StickyScope::Endpoint));
    let before = of_the_first(&shop, [90, 10], 200).await;
    let after = of_the_first(&shop, [60, 40], 200).await;
    let first = |of: &[bool]| of.iter().filter(|first| **first).count();
    // 5 sigma.
    assert!((158..=200).contains(&first(&before)), "{}", first(&before));
    assert!((85..=155).contains(&first(&after)), "{}", first(&after));
    let back = before.iter().zip(&after).filter(|(was, is)| !**was && **is);
    assert_eq!(back.count(), 0);
    assert_eq!(of_the_first(&shop, [90, 10], 200).await, before);
}

#[tokio::test]
async fn backend_scoped_tenant_keeps_side_not_endpoint() {
    let shop = Shop::new().await;
    let web = &shop.callers[0];
    shop.apply_policy(&by_header(StickyScope::Backend));
    let there = |at: &[usize]| {
        let all = at.iter();
        let all = all.map(|at| endpoint(shop.server.ip, shop.apps[*at].port, Some("api")));
        all.collect::<Vec<v1::Endpoint>>()
    };
    web.set(vec![
        endpoints("v1", there(&[0, 1])),
        endpoints("v2", there(&[2, 3])),
    ]);
    let splits = vec![split("s", &[("v1", 50), ("v2", 50)])];
    web.set(service("api", vip().ip(), Protocol::Http1, splits));
    let mut used: BTreeMap<usize, std::collections::BTreeSet<usize>> = BTreeMap::new();
    for of in 0..8 {
        for _ in 0..20 {
            let at = shop.serves(web, &tenant(of)).await;
            used.entry(of).or_default().insert(at);
        }
    }
    let side = |at: &usize| at / 2;
    for endpoints in used.values() {
        let sides: std::collections::BTreeSet<_> = endpoints.iter().map(side).collect();
        assert_eq!(sides.len(), 1, "{used:?}");
    }
    assert!(
        used.values().any(|endpoints| endpoints.len() == 2),
        "{used:?}"
    );
}

/// A header of an answer, in lower case.
fn header<'a>(answer: &'a str, name: &str) -> Vec<&'a str> {
    let head = answer.split("\r\n\r\n").next().unwrap_or_default();
    let lines = head.lines();
    let values = lines.filter_map(|line| line.strip_prefix(name)?.strip_prefix(": "));
    values.collect()
}

#[tokio::test]
async fn request_without_cookie_gets_one_for_its_endpoint() {
    let shop = Shop::new().await;
    let [web, cart] = &shop.callers;
    shop.apply_policy(&sticky(
        StickyKey::Cookie("tenant".into()),
        StickyScope::Endpoint,
    ));
    for _ in 0..10 {
        let before: Vec<usize> = shop.apps.iter().map(App::request_count).collect();
        let (status, answer) = ask(web, "GET", "x-forwarded-proto: https\r\n", "").await;
        assert_eq!(status, 200);
        let mut after = shop.apps.iter().map(App::request_count).zip(before);
        let at = after.position(|(now, before)| now > before).unwrap();
        let cookies = header(&answer, "set-cookie");
        assert_eq!(cookies.len(), 1, "{answer}");
        assert_eq!(header(&answer, "cache-control"), ["private"], "{answer}");
        let (pair, attributes) = cookies[0].split_once("; ").unwrap();
        assert_eq!(attributes, "HttpOnly; SameSite=Lax; Path=/; Secure");
        let cookie_header = format!("cookie: other=1; {pair}\r\n");
        assert_eq!(shop.serves(web, &cookie_header).await, at);
        assert_eq!(shop.serves(cart, &cookie_header).await, at);
        let (_, answer) = ask(web, "GET", &cookie_header, "").await;
        assert!(header(&answer, "set-cookie").is_empty(), "{answer}");
        assert!(header(&answer, "cache-control").is_empty(), "{answer}");
    }
}

#[tokio::test]
async fn application_cache_control_is_kept_beside_tenant_cookie() {
    const CACHED: &str = "HTTP/1.1 200 OK\r\ncontent-length: 2\r\ncache-control: max-age=60\r\nset-cookie: own=1\r\n\r\nok";
    const SHARED: &str =
        "HTTP/1.1 200 OK\r\ncontent-length: 2\r\ncache-control: Public, s-maxage=60\r\n\r\nok";
    let (client, server, _, _) = pair(Protocol::Http1).await;
    let app = App::new(server.ip, CACHED).await;
    served_by(&client, &server, &[&app]);
    let by_cookie = sticky(StickyKey::Cookie("tenant".into()), StickyScope::Backend);
    client.set(vec![policy_of(&by_cookie)]);
    let (_, answer) = ask(&client, "GET", "", "").await;
    assert_eq!(header(&answer, "cache-control"), ["max-age=60", "private"]);
    assert_eq!(header(&answer, "set-cookie").len(), 2, "{answer}");
    // A shared response becomes private.
    let shared = App::new(server.ip, SHARED).await;
    served_by(&client, &server, &[&shared]);
    let (_, answer) = ask(&client, "GET", "", "").await;
    assert_eq!(header(&answer, "cache-control"), ["private, s-maxage=60"]);
    // One of its own by that name is what the next calls go by.
    const OWN: &str =
        "HTTP/1.1 200 OK\r\ncontent-length: 2\r\nset-cookie: tenant=mine; Path=/\r\n\r\nok";
    let own = App::new(server.ip, OWN).await;
    served_by(&client, &server, &[&own]);
    let (_, answer) = ask(&client, "GET", "", "").await;
    assert_eq!(header(&answer, "set-cookie"), ["tenant=mine; Path=/"]);
    assert!(header(&answer, "cache-control").is_empty(), "{answer}");
    // Where nothing answered there is no tenant to keep.
    client.set(vec![endpoints("api", Vec::new())]);
    let (status, answer) = ask(&client, "GET", "", "").await;
    assert_eq!(status, 503);
    assert!(header(&answer, "set-cookie").is_empty(), "{answer}");
}

#[tokio::test]
async fn connections_of_a_calling_pod_keep_their_endpoint() {
    let (client, server, _, _) = pair(Protocol::Opaque).await;
    let mut apps = Vec::new();
    for name in ["a", "b", "c", "d", "e"] {
        apps.push((name, http_app(&server, name).await));
    }
    let all = apps.iter();
    let all = all.map(|(_, (port, _))| endpoint(server.ip, *port, Some("api")));
    client.set(vec![endpoints("api", all.collect())]);
    client.set(vec![policy_of(&sticky(
        StickyKey::Caller,
        StickyScope::Endpoint,
    ))]);
    for _ in 0..20 {
        let mut stream = client.call(vip()).await;
        let request = "GET / HTTP/1.1\r\nHost: h\r\nConnection: close\r\n\r\n";
        stream.write_all(request.as_bytes()).await.unwrap();
        let answer = raw(&mut stream, b"", Duration::from_secs(5)).await;
        assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
    }
    let seen = apps.iter().map(|(_, (_, seen))| seen.lock().len());
    let mut seen: Vec<usize> = seen.collect();
    seen.sort_unstable();
    assert_eq!(seen, [0, 0, 0, 0, 20]);
}
