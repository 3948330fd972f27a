//! Bounds of queries and answers, and the answer that comes in parts.
//!
//! Claims: attack-77, observe-107, observe-129

use futures::{StreamExt as _, stream};
use serde_json::json;
use tokio::sync::watch;
use tokio::time::timeout;
use tokio_stream::wrappers::ReceiverStream;

use super::config::{ConfigUnavailable, held_config};
use super::queues::ALL_BYTES;
use super::*;

const LASTS: Duration = Duration::from_secs(60);

fn uid(name: &str) -> Arc<str> {
    name.into()
}

fn question() -> Question {
    Question::Config(v1::ConfigAsk {})
}

fn answer_of(id: u64, what: Answered) -> v1::Answered {
    v1::Answered {
        id,
        what: Some(what),
    }
}

fn words(id: u64, bytes: usize) -> v1::Answered {
    answer_of(id, Answered::Refused("x".repeat(bytes)))
}

/// Id of the newest query that was sent to a proxy.
fn next_id(orders: &mut Orders) -> u64 {
    match orders.try_recv() {
        Ok(Order::Ask(ask)) => ask.id,
        other => panic!("{other:?}"),
    }
}

#[tokio::test]
async fn questions_are_bounded_and_one_that_ends_makes_room() {
    let limits = Reached::default();
    let live_queries = LiveQueries::new(LiveQueryMetrics::default(), &limits);
    let names: Vec<Arc<str>> = (0..MAX_LIVE_QUERIES)
        .map(|one| uid(&one.to_string()))
        .collect();
    let mut proxies: Vec<_> = names
        .iter()
        .map(|name| live_queries.listens(Arc::clone(name)))
        .collect();
    let mut open = Vec::new();
    for name in &names {
        let name = std::slice::from_ref(name);
        open.push(live_queries.query(question(), name, LASTS).unwrap());
    }
    let more = |name: usize| live_queries.query(question(), &names[name..=name], LASTS);
    assert_eq!(more(0).err(), Some(TooMany));
    assert_eq!(limits.count("asks"), 1);
    assert_eq!(live_queries.inner.metrics.open.get(), 64);
    open.pop();
    assert!(more(0).is_ok());

    // A proxy that takes nothing is not waited for.
    open.clear();
    let first = &mut proxies[0].1;
    while first.try_recv().is_ok() {}
    for _ in 0..ORDERS {
        open.push(more(0).unwrap());
    }
    assert_eq!(live_queries.inner.metrics.orders_dropped.get(), 0);
    let mut lost = more(0).unwrap();
    assert_eq!(live_queries.inner.metrics.orders_dropped.get(), 1);
    let none = timeout(LASTS, lost.next()).await.unwrap();
    assert!(none.is_none(), "no proxy was queried: {none:?}");
}

#[tokio::test]
async fn unread_answers_are_bounded_in_count_and_bytes() {
    let live_queries = LiveQueries::default();
    let (_here, mut orders) = live_queries.listens(uid("a"));
    let ask = || live_queries.query(question(), &[uid("a")], LASTS).unwrap();
    let dropped = || live_queries.inner.metrics.answers_dropped.get();
    let waiting = || live_queries.inner.waiting.load(Ordering::Relaxed);

    let mut small = ask();
    let id = next_id(&mut orders);
    for _ in 0..QUEUE {
        live_queries.answered("a", words(id, 10));
    }
    assert_eq!(dropped(), 0);
    live_queries.answered("a", words(id, 10));
    assert_eq!(dropped(), 1, "one more than the queue takes");
    assert!(small.next().await.is_some());
    live_queries.answered("a", words(id, 10));
    assert_eq!(dropped(), 1, "one was read");

    // By bytes: five of a MiB and a bit fit into one queue, and no more than 32 into all.
    let mut large = Vec::new();
    for _ in 0..7 {
        large.push(ask());
        let id = next_id(&mut orders);
        for _ in 0..6 {
            live_queries.answered("a", words(id, 1 << 20));
        }
    }
    assert!(
        waiting() <= ALL_BYTES && waiting() > 30 << 20,
        "{}",
        waiting()
    );
    assert_eq!(dropped(), 1 + 7 * 6 - 31);
    // What was not read gives its room back.
    drop((small, large));
    assert_eq!(waiting(), 0);
}

#[tokio::test]
async fn newer_pod_stream_does_not_answer_older_query() {
    let live_queries = LiveQueries::default();
    let (older, mut orders) = live_queries.listens(uid("a"));
    let mut first = live_queries.query(question(), &[uid("a")], LASTS).unwrap();
    let id = next_id(&mut orders);
    let (newer, mut orders) = live_queries.listens(uid("a"));
    assert!(first.next().await.is_some_and(|last| last.what.is_none()));
    assert!(first.next().await.is_none(), "its question is over");
    live_queries.answered("a", words(id, 1));
    let mut second = live_queries.query(question(), &[uid("a")], LASTS).unwrap();
    drop(older);
    let id = next_id(&mut orders);
    live_queries.answered("a", words(id, 1));
    assert!(second.next().await.is_some_and(|one| one.what.is_some()));
    drop(newer);
    assert!(second.next().await.is_some_and(|last| last.what.is_none()));
    assert!(second.next().await.is_none());
    assert_eq!(live_queries.inner.metrics.open.get(), 0);
}

#[tokio::test(start_paused = true)]
async fn pod_answer_rate_spans_queries_and_streams() {
    let live_queries = LiveQueries::default();
    let older = live_queries.listens(uid("a"));
    let now = Instant::now();
    for _ in 0..ANSWERS.burst {
        assert_eq!(live_queries.may_answer(&uid("a"), now), Ok(()));
    }
    let slowed = || live_queries.may_answer(&uid("a"), now).is_err();
    assert!(slowed());
    let newer = live_queries.listens(uid("a"));
    assert!(slowed(), "another stream is no other proxy");
    drop((older, newer));
    assert!(slowed(), "nor is one without a stream");
    let _anew = live_queries.listens(uid("a"));
    assert!(slowed(), "nor one that opens another afterwards");
    let later = now + ANSWERS.every;
    assert_eq!(live_queries.may_answer(&uid("a"), later), Ok(()));
    assert_eq!(live_queries.may_answer(&uid("b"), now), Ok(()), "by itself");
}

#[tokio::test(start_paused = true)]
async fn query_from_peer_replica_expires_without_cancellation() {
    let live_queries = LiveQueries::default();
    let (_here, mut orders) = live_queries.listens(uid("a"));
    let ask = v1::Ask {
        id: 7,
        lasts: 50,
        what: Some(question()),
    };
    let message = Some(Passed::Ask(v1::PodsAsk {
        ask: Some(ask),
        uids: vec!["a".to_owned()],
    }));
    let requests = stream::iter([Ok(v1::ReplicaAsk { message })]).chain(stream::pending());
    let (_stop, stopping) = watch::channel(false);
    let _answers = replicas::pass(&live_queries, requests, stopping);
    let Some(Order::Ask(ask)) = orders.recv().await else {
        panic!("not asked");
    };
    assert_eq!(live_queries.inner.metrics.open.get(), 1);
    let ended = timeout(Duration::from_secs(6), orders.recv()).await;
    assert_eq!(ended.unwrap(), Some(Order::EndAsk(ask.id)));
    assert_eq!(live_queries.inner.metrics.open.get(), 0);
}

/// Answers of a proxy at another replica that were more than that one had room for.
const TOO_MUCH: usize = 44;

#[tokio::test(start_paused = true)]
async fn answers_dropped_at_peer_are_counted_at_querying_replica() {
    let (here, there) = (LiveQueries::default(), LiveQueries::default());
    let (_proxy, mut orders) = there.listens(uid("a"));
    let peer: IpAddr = "10.0.0.2".parse().unwrap();
    let (passing, passed) = mpsc::channel(ORDERS);
    let _joined = here.joins(peer, passing);
    let (_stop, stopping) = watch::channel(false);
    let mut passed_on = replicas::pass(&there, ReceiverStream::new(passed).map(Ok), stopping);
    let mut answers = here.query(question(), &[uid("a")], LASTS).unwrap();
    let Some(Order::Ask(ask)) = orders.recv().await else {
        panic!("not asked");
    };
    let flood = |many: usize| {
        for _ in 0..many {
            there.answered("a", words(ask.id, 10));
        }
    };
    flood(QUEUE + TOO_MUCH);
    for _ in 0..QUEUE {
        here.answered_elsewhere(peer, passed_on.next().await.unwrap().unwrap());
        assert!(answers.next().await.unwrap().what.is_some());
    }
    assert_eq!(answers.dropped(), TOO_MUCH as u64);
    // Room of all queries together may be short, so that nothing comes after what was lost.
    let all = &there.inner.waiting;
    all.fetch_add(ALL_BYTES, Ordering::Relaxed);
    flood(1);
    let lost = passed_on.next().await.unwrap().unwrap();
    assert_eq!((lost.uid.as_str(), &lost.answered), ("", &None));
    here.answered_elsewhere(peer, lost.clone());
    here.answered_elsewhere(peer, lost);
    assert_eq!(answers.dropped(), TOO_MUCH as u64 + 1, "once");
    all.fetch_sub(ALL_BYTES, Ordering::Relaxed);
    flood(1);
    here.answered_elsewhere(peer, passed_on.next().await.unwrap().unwrap());
    assert!(answers.next().await.unwrap().what.is_some());
    assert_eq!(answers.dropped(), TOO_MUCH as u64 + 1);
    assert_eq!(here.inner.metrics.answers_dropped.get(), 0, "counted there");
}

fn part(number: u32, last: bool, names: &[&str]) -> Answered {
    let resources = names.iter().map(|name| v1::HeldResource {
        name: (*name).to_owned(),
        version: "1".to_owned(),
    });
    Answered::Config(v1::HeldConfig {
        part: number,
        last,
        identity: "spiffe://x".to_owned(),
        enforcement: "open".to_owned(),
        mtls: "strict".to_owned(),
        draining: false,
        resources: resources.collect(),
    })
}

/// What the reader gets when the proxy sends this.
async fn answered(parts: Vec<Answered>) -> Result<serde_json::Value, ConfigUnavailable> {
    let live_queries = LiveQueries::default();
    let (_here, mut orders) = live_queries.listens(uid("a"));
    let querying = tokio::spawn({
        let live_queries = live_queries.clone();
        async move { held_config(&live_queries, &uid("a")).await }
    });
    let Some(Order::Ask(ask)) = orders.recv().await else {
        panic!("not asked");
    };
    for part in parts {
        live_queries.answered("a", answer_of(ask.id, part));
    }
    let answered = querying.await.unwrap();
    assert_eq!(orders.recv().await, Some(Order::EndAsk(ask.id)));
    answered
}

#[tokio::test(start_paused = true)]
async fn proxy_config_is_returned_completely_or_never() {
    let whole = answered(vec![part(0, false, &["a", "b"]), part(1, true, &["c"])]).await;
    let page = json!({
        "identity": "spiffe://x", "enforcement": "open", "mtls": "strict", "draining": false,
        "resources": {"a": "1", "b": "1", "c": "1"},
    });
    assert_eq!(whole, Ok(page));
    let gap = vec![part(0, false, &["a"]), part(2, true, &["c"])];
    assert_eq!(answered(gap).await, Err(ConfigUnavailable::Broken));
    let repeated = vec![part(0, false, &["a"]), part(0, true, &["a"])];
    assert_eq!(answered(repeated).await, Err(ConfigUnavailable::Broken));
    let long = "x".repeat(30_000);
    let wide = (0..150).map(|number| {
        let name = format!("{number}{long}");
        part(number, number == 149, &[name.as_str()])
    });
    let wide: Vec<Answered> = wide.collect();
    assert_eq!(
        answered(wide).await,
        Err(ConfigUnavailable::Broken),
        "4.5 MB"
    );
    let many = vec!["a"; 20_001];
    assert_eq!(
        answered(vec![part(0, true, &many)]).await,
        Err(ConfigUnavailable::Broken)
    );
    let no = answered(vec![Answered::Refused("busy".to_owned())]).await;
    assert_eq!(no, Err(ConfigUnavailable::Refused("busy".to_owned())));
    assert_eq!(
        answered(vec![part(0, false, &[])]).await,
        Err(ConfigUnavailable::Late)
    );
    let absent = held_config(&LiveQueries::default(), &uid("a")).await;
    assert_eq!(absent, Err(ConfigUnavailable::Away), "and at once");
}
