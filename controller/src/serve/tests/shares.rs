//! Shares of limits on a proxy's stream.
//!
//! Claims: calls-66

use std::net::IpAddr;

use serde_json::{Value, json};
use wire::capability::Capabilities;

use super::*;

const SERVER: &str = "uid-api-1";

fn limited(names: &[&str]) -> Cluster {
    let limits = names
        .iter()
        .map(|name| json!({"name": name, "requests": 100}));
    let limits: Vec<Value> = limits.collect();
    let spec = json!({"targetRef": {"kind": "Service", "name": "api"}, "rateLimits": limits});
    cluster::shop().with(cluster::traffic_policy("p", spec))
}

fn hello(services: &[&str]) -> v1::Hello {
    let services = services.iter();
    v1::Hello {
        capabilities: Capabilities::of_this_version(),
        held: services
            .map(|name| ((*name).to_owned(), "1".to_owned()))
            .collect(),
        ..hello_for(&[])
    }
}

async fn open(bench: &Bench, uid: &str, hello: v1::Hello) -> Proxy {
    let channel = bench.mesh_channel(&account("shop", "api"), Some(uid)).await;
    let mut proxy = Proxy::open(channel, hello).await;
    let batch = proxy.batch().await;
    proxy.ack(&batch).await;
    proxy
}

/// What the replica that divides gives the pod of limit `all`.
fn gives(bench: &Bench, thousandths: u64, number: u64) {
    let share = v1::Share {
        of: Some(v1::ShareOf {
            port: 8080,
            origin: Some(v1::ObjectRef {
                kind: "TrafficPolicy".to_owned(),
                namespace: "shop".to_owned(),
                name: "p".to_owned(),
            }),
            limit: "all".to_owned(),
        }),
        thousandths,
        term: 7,
        number,
    };
    let divided = vec![v1::PodShares {
        uid: SERVER.to_owned(),
        shares: vec![share],
        ..v1::PodShares::default()
    }];
    let news = v1::Reports {
        divided,
        ..v1::Reports::default()
    };
    let leader = IpAddr::from([10, 0, 0, 9]);
    bench.share_registry.receive(leader, &news, Instant::now());
}

/// The next message, which has to be of shares: whether to forget, and the shares.
async fn shares(proxy: &mut Proxy) -> (bool, Vec<v1::Share>) {
    let message = timeout(PATIENCE, proxy.inbox.message()).await;
    match message.unwrap().unwrap().unwrap().message {
        Some(v1::to_proxy::Message::Shares(sent)) => (sent.forget, sent.shares),
        other => panic!("no shares: {other:?}"),
    }
}

/// What the pod may be using of the limit, as other replicas receive it.
fn demands(bench: &Bench) -> Vec<(u64, u64)> {
    let (_, news) = bench.share_registry.own_since(0);
    let demands = news.into_iter().flat_map(|news| news.held);
    let shares = demands
        .filter(|pod| pod.uid == SERVER)
        .flat_map(|pod| pod.shares);
    shares
        .map(|share| (share.number, share.thousandths))
        .collect()
}

#[tokio::test]
async fn pod_receives_its_share_and_acceptance_reaches_replicas() {
    let bench = Bench::start(&limited(&["all"])).await;
    let mut proxy = open(&bench, SERVER, hello(&[])).await;
    gives(&bench, 50_000, 3);
    let (forget, granted) = shares(&mut proxy).await;
    assert!(!forget);
    assert_eq!((granted.len(), granted[0].thousandths), (1, 50_000));
    gives(&bench, 20_000, 4);
    let (_, smaller) = shares(&mut proxy).await;
    assert_eq!(smaller[0].thousandths, 20_000);
    assert_eq!(
        demands(&bench),
        [(3, 50_000)],
        "until it says that it has it"
    );
    let taken = smaller.into_iter().map(|share| v1::ShareTaken {
        of: share.of,
        term: share.term,
        number: share.number,
    });
    let taken = taken.collect();
    proxy
        .send_message(Message::SharesTaken(v1::SharesTaken { taken }))
        .await;
    let deadline = Instant::now() + PATIENCE;
    while demands(&bench) != [(4, 20_000)] {
        assert!(Instant::now() < deadline, "{:?}", demands(&bench));
        sleep(Duration::from_millis(10)).await;
    }
    assert!(proxy.is_silent_for(Duration::from_millis(300)).await);
}

#[tokio::test]
async fn share_of_restored_limit_is_sent_again() {
    let bench = Bench::start(&limited(&["all", "other"])).await;
    let mut proxy = open(&bench, SERVER, hello(&[])).await;
    gives(&bench, 50_000, 3);
    assert_eq!(shares(&mut proxy).await.1.len(), 1);
    for limits in [&["other"][..], &["all", "other"]] {
        bench.publish(&limited(limits));
        let batch = proxy.batch().await;
        assert_eq!(names(&batch), [wire::names::GUARD]);
        proxy.ack(&batch).await;
        let (forget, granted) = shares(&mut proxy).await;
        assert!(!forget);
        assert_eq!((granted[0].number, granted[0].thousandths), (3, 50_000));
    }
    // What changes nothing of it says nothing of it.
    bench.publish(&limited(&["all", "other"]));
    assert!(proxy.is_silent_for(Duration::from_millis(300)).await);
}

#[tokio::test]
async fn only_long_absent_pod_must_forget_once() {
    let bench = Bench::start(&cluster::shop()).await;
    let then = Instant::now().checked_sub(Duration::from_secs(20)).unwrap();
    for uid in [SERVER, "uid-api-2"] {
        let uid = uid.into();
        bench.share_registry.connected(&uid, 9000, then);
        bench.share_registry.ended(&uid, 9000, then);
    }
    let mut back = open(&bench, SERVER, hello(&["workload"])).await;
    assert_eq!(shares(&mut back).await, (true, Vec::new()));
    let mut again = open(&bench, SERVER, hello(&["workload"])).await;
    let mut new = open(&bench, "uid-api-2", hello(&[])).await;
    for proxy in [&mut back, &mut again, &mut new] {
        assert!(proxy.is_silent_for(Duration::from_millis(200)).await);
    }
}

#[tokio::test]
async fn offered_load_of_pod_reaches_replicas() {
    let bench = Bench::start(&limited(&["all"])).await;
    let mut proxy = open(&bench, SERVER, hello(&[])).await;
    gives(&bench, 50_000, 3);
    let (_, granted) = shares(&mut proxy).await;
    let load = v1::OfferedLoad {
        of: granted[0].of.clone(),
        thousandths: 70_000,
        refused: true,
    };
    let loads = vec![load.clone()];
    proxy
        .send_message(Message::OfferedLoads(v1::OfferedLoads { loads }))
        .await;
    let reported = || {
        let (_, news) = bench.share_registry.own_since(0);
        let pods = news.into_iter().flat_map(|news| news.held);
        let own = pods.filter(|pod| pod.uid == SERVER);
        own.flat_map(|pod| pod.offered)
            .collect::<Vec<v1::OfferedLoad>>()
    };
    let deadline = Instant::now() + PATIENCE;
    while reported() != [load.clone()] {
        assert!(Instant::now() < deadline, "{:?}", reported());
        sleep(Duration::from_millis(10)).await;
    }
}
