//! Upgrades by POST, as remote commands of containers use them.
//!
//! Claims: attack-102

use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;

use policy::traffic::EffectivePolicy;
use policy::traffic::call::Retry;
use policy::traffic::set::{Methods, Statuses};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::time::timeout;
use wire::v1::Protocol;

use super::answers::{App, OK, ask, limited, policy_of, served_by, sum};
use super::mirror_older::earlier;
use super::mirrors::{MIRRORED, Shop, mirror};
use super::patience::stand_in;
use super::switching::head;
use crate::support::{Authority, Pod, endpoint, endpoints, listening, pair, service, vip};

const SOON: Duration = Duration::from_secs(5);
/// What is on its way has come by then.
const SETTLED: Duration = Duration::from_millis(300);
const UPGRADE: &str = "Connection: Upgrade\r\nUpgrade: tcp\r\n";
const FIVE: &str = "Content-Length: 5\r\n";
const SWITCHED: &[u8] =
    b"HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: tcp\r\n\r\n";

fn request(method: &str, length: &str, body: &str) -> String {
    format!("{method} /exec HTTP/1.1\r\nHost: web.shop\r\n{UPGRADE}{length}\r\n{body}")
}

/// How a request comes to an application.
const WAYS: [&str; 3] = ["by two proxies", "from outside", "to a pod without a proxy"];

async fn call(way: &str, client: &Pod, server: &Pod, application: &TcpListener) -> TcpStream {
    let port = application.local_addr().unwrap().port();
    if way == "from outside" {
        return server.plain(port).await;
    }
    let account = (way == "by two proxies").then_some("api");
    let there = endpoint(server.ip, port, account);
    client.set(vec![endpoints("api", vec![there])]);
    client.call(vip()).await
}

/// The next request that an application gets: its connection, and its head in small letters.
async fn accept(application: &TcpListener) -> (TcpStream, String) {
    let accepted = timeout(SOON, application.accept()).await;
    let (mut stream, _) = accepted.expect("it must be asked").unwrap();
    let head = head(&mut stream).await.to_lowercase();
    (stream, head)
}

async fn expect(stream: &mut TcpStream, bytes: &str) {
    let mut came = vec![0; bytes.len()];
    let read = timeout(SOON, stream.read_exact(&mut came)).await;
    read.expect("bytes must come").unwrap();
    assert_eq!(String::from_utf8_lossy(&came), bytes);
}

async fn nothing_comes(stream: &mut TcpStream) {
    let read = timeout(SETTLED, stream.read_u8()).await;
    assert!(read.is_err(), "{read:?}");
}

#[tokio::test]
async fn post_that_switches_carries_bytes_both_ways() {
    let (client, server, _, _) = pair(Protocol::Http1).await;
    let application = listening(&client, &server).await;
    for way in WAYS {
        for (method, length, body) in [
            ("POST", "", ""),
            ("POST", "Content-Length: 0\r\n", ""),
            ("POST", FIVE, "hello"),
            // As some clients of WebSocket say it.
            ("GET", "Content-Length: 0\r\n", ""),
        ] {
            let mut caller = call(way, &client, &server, &application).await;
            let request = request(method, length, body);
            caller.write_all(request.as_bytes()).await.unwrap();
            let (mut serving, asked) = accept(&application).await;
            let line = format!("{} /exec ", method.to_lowercase());
            assert!(asked.starts_with(&line), "{way}: {asked}");
            assert!(asked.contains("upgrade: tcp"), "{asked}");
            expect(&mut serving, body).await;
            serving.write_all(SWITCHED).await.unwrap();
            let answer = head(&mut caller).await;
            assert!(answer.starts_with("HTTP/1.1 101"), "{method}: {answer}");
            caller.write_all(b"ping").await.unwrap();
            expect(&mut serving, "ping").await;
            serving.write_all(b"pong").await.unwrap();
            expect(&mut caller, "pong").await;
        }
    }
}

#[tokio::test]
async fn bytes_behind_a_post_wait_for_the_switch() {
    let (client, server, _, _) = pair(Protocol::Http1).await;
    let application = listening(&client, &server).await;
    for way in WAYS {
        let mut caller = call(way, &client, &server, &application).await;
        let early = request("POST", FIVE, "helloearly");
        caller.write_all(early.as_bytes()).await.unwrap();
        let (mut serving, _) = accept(&application).await;
        expect(&mut serving, "hello").await;
        nothing_comes(&mut serving).await;
        serving.write_all(SWITCHED).await.unwrap();
        let answer = head(&mut caller).await;
        assert!(answer.starts_with("HTTP/1.1 101"), "{answer}");
        expect(&mut serving, "early").await;
    }
}

/// Whatever its application would answer: it has nothing to answer yet.
#[tokio::test]
async fn post_goes_nowhere_before_its_whole_body_came() {
    let (client, server, _, _) = pair(Protocol::Http1).await;
    let application = listening(&client, &server).await;
    for way in WAYS {
        let mut caller = call(way, &client, &server, &application).await;
        let half = request("POST", FIVE, "he");
        caller.write_all(half.as_bytes()).await.unwrap();
        let asked = timeout(SETTLED, application.accept()).await;
        assert!(asked.is_err(), "{way}: half of a body was sent");
        caller.write_all(b"llo").await.unwrap();
        let (mut serving, _) = accept(&application).await;
        expect(&mut serving, "hello").await;
        serving.write_all(SWITCHED).await.unwrap();
        let answer = head(&mut caller).await;
        assert!(answer.starts_with("HTTP/1.1 101"), "{answer}");
    }
}

#[tokio::test]
async fn post_that_is_answered_otherwise_leaves_http_as_it_was() {
    let (client, server, _, _) = pair(Protocol::Http1).await;
    let application = listening(&client, &server).await;
    for way in WAYS {
        let mut caller = call(way, &client, &server, &application).await;
        let forged = "GET /next HTTP/1.1\r\nHost: h\r\nweft-client-id: spiffe://evil\r\n\r\n";
        let both = request("POST", FIVE, &format!("hello{forged}"));
        caller.write_all(both.as_bytes()).await.unwrap();
        for path in ["post /exec ", "get /next "] {
            let (mut serving, asked) = accept(&application).await;
            assert!(asked.starts_with(path), "{way}: {asked}");
            assert!(!asked.contains("evil"), "{asked}");
            serving.write_all(OK.as_bytes()).await.unwrap();
            let answer = head(&mut caller).await;
            assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
            expect(&mut caller, OK.split("\r\n\r\n").nth(1).unwrap()).await;
        }
    }
}

#[tokio::test]
async fn older_proxy_gets_the_post_without_its_upgrade() {
    let authority = Authority::new();
    let client = Pod::new(&authority, "web").await;
    client.set(service("api", vip().ip(), Protocol::Http1, Vec::new()));
    let (ip, request_count) = stand_in(&authority, earlier).await;
    let older = endpoint(ip, 8080, Some("api"));
    client.set(vec![endpoints("api", vec![older])]);
    let (status, answer) = ask(&client, "POST", UPGRADE, "hello").await;
    assert_eq!(status, 200, "{answer}");
    assert_eq!(
        request_count.load(Relaxed),
        2,
        "asked once, and then without"
    );
    let (status, answer) = ask(&client, "POST", "", "hello").await;
    assert_eq!(status, 200, "{answer}");
    assert_eq!(request_count.load(Relaxed), 3);
}

#[tokio::test]
async fn post_that_asks_for_an_upgrade_is_sent_once() {
    const TEAPOT: &str = "HTTP/1.1 418 No\r\ncontent-length: 0\r\n\r\n";
    let (client, server, _, _) = pair(Protocol::Http1).await;
    let apps = [
        App::new(server.ip, TEAPOT).await,
        App::new(server.ip, TEAPOT).await,
        App::new(server.ip, TEAPOT).await,
    ];
    served_by(&client, &server, &apps.iter().collect::<Vec<_>>());
    let mut retry = Retry {
        attempts: 1,
        codes: Statuses::of(&[418]),
        methods: Methods::Any,
        ..Retry::DEFAULT
    };
    retry.budget.min_per_second = 1000;
    client.set(vec![policy_of(&EffectivePolicy {
        retry: limited(retry),
        ..EffectivePolicy::default()
    })]);
    let request_count = || apps.iter().map(App::request_count).sum::<usize>();
    assert_eq!(ask(&client, "POST", UPGRADE, "pay 5").await.0, 418);
    assert_eq!(request_count(), 1);
    // Control: without the upgrade it is tried again.
    assert_eq!(ask(&client, "POST", "", "pay 5").await.0, 418);
    assert_eq!(request_count(), 3);
}

#[tokio::test]
async fn post_that_asks_for_an_upgrade_is_copied_nowhere() {
    let shop = Shop::new(OK).await;
    let mut any = mirror();
    any.methods = Methods::Any;
    shop.mirrors(vec![any]);
    assert_eq!(ask(&shop.client, "POST", UPGRADE, "one").await.0, 200);
    // Control, behind it: without the upgrade it is.
    assert_eq!(ask(&shop.client, "POST", "", "two").await.0, 200);
    shop.until("success", 1.0).await;
    assert_eq!(shop.next.bodies(), ["two"]);
    assert_eq!(sum(&shop.client, MIRRORED, &[]), 1.0);
}
