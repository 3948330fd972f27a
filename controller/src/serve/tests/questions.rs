//! Users' queries to proxies, and what becomes of the answers.
//!
//! Claims: observe-105, observe-107, observe-123

use tokio::time::sleep;
use tonic::Code;
use wire::capability::Capabilities;
use wire::v1::answered::What as Answered;
use wire::v1::ask::What as Question;
use wire::v1::to_proxy::Message as ToProxy;

use super::*;

const UID: &str = "uid-client";

fn hello(destinations: &[&str]) -> v1::Hello {
    v1::Hello {
        capabilities: Capabilities::of_this_version(),
        ..hello_for(destinations)
    }
}

fn question() -> Question {
    Question::Config(v1::ConfigAsk {})
}

fn answer_of(id: u64, words: &str) -> v1::Answered {
    v1::Answered {
        id,
        what: Some(Answered::Refused(words.to_owned())),
    }
}

/// The proxy of `client`, which has its first batch, and what it answers by.
async fn client(bench: &Bench, destinations: &[&str]) -> (Proxy, Channel, v1::Batch) {
    let channel = bench.mesh_channel(&account("shop", "web"), Some(UID)).await;
    let mut proxy = Proxy::open(channel.clone(), hello(destinations)).await;
    let batch = proxy.batch().await;
    (proxy, channel, batch)
}

/// Says this by one call, and waits until the controller has read it.
async fn answer(channel: &Channel, answers: Vec<v1::Answered>) -> Result<(), Status> {
    let answers = tokio_stream::iter(answers);
    let ended = ControlClient::new(channel.clone()).answer(answers).await;
    ended.map(drop)
}

/// The next message to the proxy beside its configuration.
async fn next_message(proxy: &mut Proxy) -> ToProxy {
    loop {
        let message = timeout(PATIENCE, proxy.inbox.message()).await;
        match message.unwrap().unwrap().unwrap().message {
            Some(ToProxy::Batch(_)) => {}
            Some(other) => return other,
            None => panic!("nothing"),
        }
    }
}

async fn next_query(proxy: &mut Proxy) -> v1::Ask {
    match next_message(proxy).await {
        ToProxy::Ask(ask) => ask,
        other => panic!("{other:?}"),
    }
}

#[tokio::test]
async fn query_accepts_answer_only_from_its_proxy() {
    let bench = Bench::start(&cluster::shop()).await;
    let (mut proxy, channel, _) = client(&bench, &[]).await;
    let api = account("shop", "api");
    let other = bench.mesh_channel(&api, Some("uid-api-1")).await;
    let mut beside = Proxy::open(other.clone(), hello(&[])).await;
    beside.batch().await;

    let mut answers = bench
        .live_queries
        .query(question(), &[UID.into()], PATIENCE)
        .unwrap();
    let ask = next_query(&mut proxy).await;
    assert_eq!(
        (ask.lasts, ask.what),
        (PATIENCE.as_millis() as u64, Some(question()))
    );
    assert!(beside.is_silent_for(Duration::from_millis(100)).await);
    answer(&other, vec![answer_of(ask.id, "of another pod")])
        .await
        .unwrap();
    let own = vec![
        answer_of(ask.id + 1, "to another question"),
        answer_of(ask.id, "own"),
    ];
    answer(&channel, own).await.unwrap();
    let first = timeout(PATIENCE, answers.next()).await.unwrap().unwrap();
    assert_eq!(&*first.uid, UID);
    assert_eq!(first.what, Some(Answered::Refused("own".to_owned())));

    assert_eq!(bench.metrics.live_queries.open.get(), 1);
    drop(answers);
    assert_eq!(next_message(&mut proxy).await, ToProxy::EndAsk(ask.id));
    assert_eq!(bench.metrics.live_queries.open.get(), 0);
}

#[tokio::test]
async fn disconnected_or_older_proxy_is_not_awaited_by_query() {
    let bench = Bench::start(&cluster::shop()).await;
    let mut older = bench.client(hello_for(&[])).await;
    older.batch().await;
    let ask = || {
        bench
            .live_queries
            .query(question(), &[UID.into()], PATIENCE)
            .unwrap()
    };
    let none = timeout(Duration::from_secs(1), ask().next()).await.unwrap();
    assert!(none.is_none(), "{none:?}");
    assert!(older.is_silent_for(Duration::from_millis(100)).await);
    drop(older);

    let (mut proxy, channel, _) = client(&bench, &[]).await;
    let mut answers = ask();
    next_query(&mut proxy).await;
    drop((proxy, channel));
    let last = timeout(PATIENCE, answers.next()).await.unwrap().unwrap();
    assert_eq!(last.what, None, "its stream has ended");
    assert!(answers.next().await.is_none());
}

#[tokio::test]
async fn proxy_that_cannot_try_rules_is_asked_all_else() {
    let bench = Bench::start(&cluster::shop()).await;
    let trial = || Question::Trial(v1::TrialAsk::default());
    let ask = |what: Question| {
        bench
            .live_queries
            .query(what, &[UID.into()], PATIENCE)
            .unwrap()
    };
    let channel = bench.mesh_channel(&account("shop", "web"), Some(UID)).await;
    let mut older = hello(&[]);
    older.capabilities.retain(|name| name != "trial");
    let mut proxy = Proxy::open(channel.clone(), older).await;
    proxy.batch().await;
    let _tried = ask(trial());
    assert!(proxy.is_silent_for(Duration::from_millis(200)).await);
    let _answers = ask(question());
    assert_eq!(next_query(&mut proxy).await.what, Some(question()));
    drop((proxy, channel));

    let (mut proxy, _channel, _) = client(&bench, &[]).await;
    let _tried = ask(trial());
    assert_eq!(
        next_query(&mut proxy).await.what,
        Some(trial()),
        "a newer one is"
    );
}

#[tokio::test]
async fn answer_flood_is_dropped_and_counted_without_delaying_acknowledgements() {
    let bench = Bench::start(&with_split(10)).await;
    let (mut proxy, channel, batch) = client(&bench, &[API]).await;
    let mut answers = bench
        .live_queries
        .query(question(), &[UID.into()], PATIENCE)
        .unwrap();
    let id = next_query(&mut proxy).await.id;
    let endless = tokio_stream::iter(std::iter::repeat(answer_of(id, &"x".repeat(1_000))));
    let flooding =
        tokio::spawn(async move { ControlClient::new(channel).answer(endless).await.is_ok() });
    let deadline = Instant::now() + PATIENCE;
    while bench.metrics.limits.count("ask-answers") == 0 {
        assert!(Instant::now() < deadline, "no flood");
        sleep(Duration::from_millis(10)).await;
    }
    proxy.ack(&batch).await;
    bench.tally(&canary(), 1).await;
    assert!(!flooding.is_finished());
    flooding.abort();
    assert!(bench.metrics.live_queries.answers_dropped.get() > 1_000);
    for _ in 0..256 {
        assert!(answers.next().await.is_some());
    }
}

#[tokio::test]
async fn query_and_answer_pass_through_replica_connected_to_proxy() {
    let bench = Bench::start(&cluster::shop()).await;
    let (mut proxy, channel, _) = client(&bench, &[]).await;
    let other = LiveQueries::default();
    let listener = Listener {
        client: crate::testing::api_server::FakeApi::default().client(),
        namespace: "weft-system".to_owned(),
        service: "weft-controller".to_owned(),
        own: "127.0.0.2".parse().unwrap(),
        observed: Observed::default(),
        reports: Reports::new(ReportMetrics::default()),
        early: EarlyCounts::new(Counter::default()),
        live_queries: other.clone(),
        fleet: bench.other_fleet(),
        share_registry: ShareRegistry::default(),
        inventory: Arc::default(),
        roots: bench.roots.clone(),
        certificate: bench.certificate.clone(),
        identity: bench.identity.clone(),
        peers: prometheus_client::metrics::gauge::Gauge::default(),
    };
    let addr = bench.addr;
    let listening = tokio::spawn(async move { listener.listen(addr).await });
    let deadline = Instant::now() + PATIENCE;
    while other.replicas() == 0 {
        assert!(Instant::now() < deadline, "the replicas do not meet");
        sleep(Duration::from_millis(10)).await;
    }
    let uids: [Arc<str>; 2] = [UID.into(), "uid-of-no-pod".into()];
    let mut answers = other.query(question(), &uids, PATIENCE).unwrap();
    let id = next_query(&mut proxy).await.id;
    answer(&channel, vec![answer_of(id, "here")]).await.unwrap();
    let first = timeout(PATIENCE, answers.next()).await.unwrap().unwrap();
    assert_eq!(&*first.uid, UID);
    assert_eq!(first.what, Some(Answered::Refused("here".to_owned())));
    drop(answers);
    assert_eq!(next_message(&mut proxy).await, ToProxy::EndAsk(id));

    let mut answers = other.query(question(), &uids, PATIENCE).unwrap();
    next_query(&mut proxy).await;
    drop((proxy, channel));
    let last = timeout(PATIENCE, answers.next()).await.unwrap().unwrap();
    assert_eq!((&*last.uid, last.what), (UID, None), "its stream has ended");
    listening.abort();
}

#[tokio::test]
async fn only_pods_answer_and_only_controllers_ask() {
    let bench = Bench::start(&cluster::shop()).await;
    for channel in [
        bench.bootstrap_channel().await,
        bench.mesh_channel(&account("shop", "web"), None).await,
    ] {
        let refused = answer(&channel, vec![answer_of(1, "x")]).await.unwrap_err();
        assert_eq!(refused.code(), Code::Unauthenticated);
    }
    let pod = bench.mesh_channel(&account("shop", "web"), Some(UID)).await;
    for channel in [bench.bootstrap_channel().await, pod] {
        let passed = tokio_stream::iter(Vec::<v1::ReplicaAsk>::new());
        let refused = ReplicaClient::new(channel).ask(passed).await.unwrap_err();
        assert_eq!(refused.code(), Code::PermissionDenied);
    }
}

#[tokio::test]
async fn calls_that_bring_answers_end_when_the_controller_does() {
    let bench = Bench::start(&cluster::shop()).await;
    let channel = bench.mesh_channel(&account("shop", "web"), Some(UID)).await;
    let endless = tokio_stream::pending::<v1::Answered>();
    let answering =
        tokio::spawn(async move { ControlClient::new(channel).answer(endless).await.is_ok() });
    sleep(Duration::from_millis(100)).await;
    assert!(!answering.is_finished());
    bench.stop.send_replace(true);
    timeout(PATIENCE, bench.server).await.unwrap().unwrap();
    timeout(PATIENCE, answering).await.unwrap().unwrap();
}
