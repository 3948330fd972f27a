//! Dry runs of rules on live calls: the proxy counts what the rules would do, and changes nothing
//! of what it does.
//!
//! Claims: observe-121

use futures::future::join_all;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use wire::v1::{self, Enforcement, MtlsMode, Protocol};

use super::names::routes;
use super::own_tls::{BYTES, hello, said};
use super::tcp::echo;
use crate::support::{Pod, get, listening, pair, rule, vip};

/// A dry run of these rules, and nothing else.
fn ask(enforcement: Enforcement, rules: &[v1::Resource]) -> v1::TrialAsk {
    let rules = rules.iter().filter_map(wire::convert::rule_in).cloned();
    v1::TrialAsk {
        enforcement: enforcement.into(),
        rules: rules.collect(),
        examples: 20,
    }
}

/// Kept, refused and allowed, of the rows that fit.
fn sum(parts: &[v1::TrialCounts], fits: impl Fn(&v1::Edge, &str) -> bool) -> [u64; 3] {
    let mut sum = [0; 3];
    for row in parts.iter().flat_map(|part| &part.rows) {
        if fits(row.edge.as_ref().unwrap(), &row.route) {
            sum[0] += row.kept;
            sum[1] += row.would_refuse;
            sum[2] += row.would_allow;
        }
    }
    sum
}

/// Statuses of as many requests for each path, all at once.
async fn load(client: &Pod, paths: &[&str], each: usize) -> Vec<u16> {
    let calls = paths.iter().cycle().take(paths.len() * each);
    let calls = calls.map(|path| async move { get(client.call(vip()).await, path, "").await.0 });
    join_all(calls).await
}

#[tokio::test]
async fn dry_run_evaluates_live_requests_and_all_pass() {
    let (client, server, port, seen) = pair(Protocol::Http1).await;
    server.set(vec![routes(&[
        ("cart", "item", "/items/[0-9]+$"),
        ("cart", "items", "/items"),
    ])]);
    let tried = ask(
        Enforcement::Enforce,
        &[rule("t", "web", None, Some(&["/items$", "/public"]))],
    );
    let (running, mut examples) = server.proxy.config.dry_runs.begin(&tried).unwrap();
    let paths = [
        "/items",
        "/items/7?token=s3cret",
        "/x/../public",
        "/private",
    ];
    assert_eq!(load(&client, &paths, 10).await, [200; 40]);
    assert_eq!(get(server.plain(port).await, "/items", "").await.0, 200);
    assert_eq!(seen.lock().len(), 41, "nothing is withheld");

    let parts = running.counts();
    let web = |edge: &v1::Edge| edge.identity == "shop/web";
    let of = |name: &'static str| sum(&parts, |edge, route| web(edge) && route == name);
    assert_eq!(of("cart/items"), [10, 0, 0], "{parts:?}");
    assert_eq!(of("cart/item"), [0, 10, 0], "{parts:?}");
    assert_eq!(of(""), [10, 10, 0], "{parts:?}");
    let outside = sum(&parts, |edge, _| edge.identity.is_empty());
    assert_eq!(outside, [0, 1, 0], "{parts:?}");
    assert!(parts.iter().all(|part| part.skipped == 0), "{parts:?}");
    let edges = parts.iter().flat_map(|part| &part.rows);
    for edge in edges.filter_map(|row| row.edge.as_ref()) {
        assert_eq!(edge.port, u32::from(port));
        assert_eq!(edge.side(), v1::Side::Server);
        assert_eq!(edge.protocol(), Protocol::Http1);
    }
    let mut shown = 0;
    while let Ok(example) = examples.try_recv() {
        let path = ["/items/7", "/private", "/items"].contains(&&*example.path);
        assert!(path && !example.would_allow, "{example:?}");
        assert_eq!(example.method, "GET");
        shown += 1;
    }
    assert_eq!(shown, 20);

    // The dry run has no client any more.
    drop(running);
    assert_eq!(load(&client, &["/private"], 1).await, [200]);
    assert!(examples.try_recv().is_err());
}

#[tokio::test]
async fn dry_run_of_wider_rules_admits_nothing_additional() {
    let (client, server, _, seen) = pair(Protocol::Http1).await;
    server.mode("api", Enforcement::Enforce, MtlsMode::Permissive);
    server.set(vec![rule("t", "web", None, Some(&["/items"]))]);
    let all = ask(Enforcement::Open, &[]);
    let (open, _examples) = server.proxy.config.dry_runs.begin(&all).unwrap();
    let same = ask(
        Enforcement::Enforce,
        &[rule("t", "web", None, Some(&["/items"]))],
    );
    let (same, _none) = server.proxy.config.dry_runs.begin(&same).unwrap();
    assert_eq!(
        load(&client, &["/private", "/items"], 2).await,
        [403, 200, 403, 200]
    );
    assert_eq!(seen.lock().len(), 2);
    assert_eq!(sum(&open.counts(), |_, _| true), [2, 0, 2]);
    assert_eq!(sum(&same.counts(), |_, _| true), [4, 0, 0]);
}

#[tokio::test]
async fn path_unreadable_to_dry_run_counts_as_refused() {
    let (client, server, _, _) = pair(Protocol::Http1).await;
    let all = [rule("t", "web", None, Some(&["/"]))];
    let enforced = ask(Enforcement::Enforce, &all);
    let (enforced, _examples) = server.proxy.config.dry_runs.begin(&enforced).unwrap();
    let (audited, _none) = {
        let audited = ask(Enforcement::Audit, &all);
        server.proxy.config.dry_runs.begin(&audited).unwrap()
    };
    // Of the first the rules depend on how it is read, of the second they do not.
    let paths = ["/a%5cb", "/a%2fb", "/a/b"];
    assert_eq!(load(&client, &paths, 1).await, [200, 200, 200]);
    assert_eq!(sum(&enforced.counts(), |_, _| true), [2, 1, 0]);
    assert_eq!(sum(&audited.counts(), |_, _| true), [3, 0, 0]);
    // And so it is.
    server.mode("api", Enforcement::Enforce, MtlsMode::Permissive);
    server.set(all.to_vec());
    assert_eq!(load(&client, &paths, 1).await, [400, 200, 200]);
    assert_eq!(sum(&enforced.counts(), |_, _| true), [5, 1, 0]);
}

#[tokio::test]
async fn dry_run_evaluates_opaque_connections_even_when_refused() {
    let (client, server, _, _) = pair(Protocol::Opaque).await;
    let listener = listening(&client, &server).await;
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            tokio::spawn(async move {
                let (mut read, mut write) = stream.split();
                let _ = tokio::io::copy(&mut read, &mut write).await;
            });
        }
    });
    let by_requests = ask(
        Enforcement::Enforce,
        &[rule("t", "web", None, Some(&["/"]))],
    );
    let (by_requests, _examples) = server.proxy.config.dry_runs.begin(&by_requests).unwrap();
    let by_port = ask(Enforcement::Enforce, &[rule("t", "web", Some(&[]), None)]);
    let (by_port, mut examples) = server.proxy.config.dry_runs.begin(&by_port).unwrap();
    let mut stream = client.call(vip()).await;
    let mut echo = [0; 4];
    for _ in 0..3 {
        stream.write_all(b"ping").await.unwrap();
        stream.read_exact(&mut echo).await.unwrap();
    }
    let bytes = |edge: &v1::Edge, _: &str| edge.protocol() == Protocol::Opaque;
    assert_eq!(sum(&by_requests.counts(), bytes), [0, 1, 0]);
    assert_eq!(sum(&by_port.counts(), bytes), [1, 0, 0]);

    server.mode("api", Enforcement::Enforce, MtlsMode::Permissive);
    let mut stream = client.call(vip()).await;
    stream.write_all(b"ping").await.unwrap();
    assert!(!matches!(stream.read(&mut echo).await, Ok(1..)), "closed");
    assert_eq!(sum(&by_requests.counts(), bytes), [1, 1, 0]);
    assert_eq!(sum(&by_port.counts(), bytes), [1, 0, 1]);
    assert!(examples.try_recv().is_err(), "bytes are no requests");
}

/// The same protocol as in the graph's edge. It does not affect the decision: TLS is no request.
#[tokio::test]
async fn dry_run_treats_tls_as_bytes_but_counts_tls() {
    let rules = [rule("t", "web", None, Some(&["/"]))];
    for (says, carried) in [
        (&hello("api.shop")[..], Protocol::Tls),
        (BYTES, Protocol::Opaque),
    ] {
        let (client, server, _, _) = pair(Protocol::Detect).await;
        let port = echo(&server, "").await;
        client.reaches(&server, port);
        let tried = ask(Enforcement::Enforce, &rules);
        let (tried, _examples) = server.proxy.config.dry_runs.begin(&tried).unwrap();
        let same_protocol = |edge: &v1::Edge, _: &str| edge.protocol() == carried;
        let _stays = said(client.call(vip()).await, says).await;
        let counts = tried.counts();
        assert_eq!(sum(&counts, same_protocol), [0, 1, 0], "{counts:?}");
        assert_eq!(sum(&counts, |_, _| true), [0, 1, 0], "{counts:?}");

        // And so it is.
        server.mode("api", Enforcement::Enforce, MtlsMode::Permissive);
        server.set(rules.to_vec());
        let mut stream = client.call(vip()).await;
        stream.write_all(says).await.unwrap();
        assert!(!matches!(stream.read(&mut [0]).await, Ok(1..)), "closed");
        let counts = tried.counts();
        assert_eq!(sum(&counts, same_protocol), [1, 1, 0], "{counts:?}");
        assert_eq!(sum(&counts, |_, _| true), [1, 1, 0], "{counts:?}");
    }
}
