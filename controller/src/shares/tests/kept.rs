//! What a replica keeps of pods and limits, and for how long.
//!
//! Claims: calls-66

use model::compiled::Compiled;
use prost::Message as _;
use tokio::sync::watch;

use super::*;
use crate::shares::divide::ShareMessage;
use crate::shares::key::NamedLimit;
use crate::shares::registry::{KEPT, TOGETHER_BYTES};

fn share_of(limit: &str) -> ShareOf {
    ShareOf {
        port: 8080,
        of: NamedLimit {
            policy: ObjectKey::new("shop", "p"),
            limit: limit.into(),
        },
    }
}

fn message_of(uid: &Arc<str>, limit: &str, number: u64) -> ShareMessage {
    ShareMessage {
        uid: Arc::clone(uid),
        of: share_of(limit),
        thousandths: 1000,
        number,
    }
}

fn compiled(cluster: &Cluster) -> Arc<Compiled> {
    let world = Arc::new(cluster.world());
    let (model, problems) = Model::compile(&world, &Defaults::default());
    Arc::new(Compiled::new(world, model, problems))
}

/// A replica that divides a limit among its two pods, each of which has half of it.
async fn leading() -> (Replica, watch::Sender<Option<Arc<Compiled>>>) {
    let (models, latest) = watch::channel(Some(compiled(&with_limit(100))));
    let mut one = Replica::new(1, &["uid-api-1", "uid-api-2"], Instant::now());
    tokio::spawn(crate::shares::lead(one.share_registry.clone(), latest));
    serve_for(&mut one, 5 * SECOND).await;
    assert!(one.use_of.values().all(|part| *part == 50_000));
    (one, models)
}

async fn serve_for(one: &mut Replica, time: Duration) {
    let until = Instant::now() + time;
    while Instant::now() < until {
        tokio::time::sleep(SECOND / 10).await;
        one.serves();
    }
}

/// The second pod is an endpoint like this, or none.
fn with_second(endpoint: Option<serde_json::Value>) -> Arc<Compiled> {
    let all = with_limit(100);
    let others = all.objects().iter();
    let others = others
        .filter(|object| object["kind"] != "EndpointSlice")
        .cloned();
    let endpoints: Vec<_> = std::iter::once(cluster::endpoint("api-1", "10.0.0.11"))
        .chain(endpoint)
        .collect();
    let slice = cluster::slice("api-x", "api", &[("http", 8080)], &endpoints);
    compiled(&others.fold(Cluster::default(), Cluster::with).with(slice))
}

fn second(ready: bool, terminating: bool) -> serde_json::Value {
    let mut endpoint = cluster::endpoint("api-2", "10.0.0.12");
    let conditions = json!({"ready": ready, "serving": ready, "terminating": terminating});
    endpoint["conditions"] = conditions;
    endpoint
}

/// The stream of the second pod ends.
fn end(one: &mut Replica) {
    let gone: Arc<str> = "uid-api-2".into();
    one.share_registry.ended(&gone, 2, Instant::now());
    one.use_of.remove(&gone);
}

/// The pod is sent what it is given, and says so. Returns how many shares that were.
fn serve(share_registry: &ShareRegistry, uid: &Arc<str>) -> usize {
    let shares = share_registry.send(uid);
    let sent = shares.len();
    let taken = shares.into_iter().map(|share| v1::ShareTaken {
        of: share.of,
        term: share.term,
        number: share.number,
    });
    let taken = taken.collect();
    share_registry.taken(uid, &v1::SharesTaken { taken });
    sent
}

#[test]
fn long_absent_pod_loses_and_forgets_its_share() {
    let now = Instant::now();
    let away: Arc<str> = "uid-api-2".into();
    // It is back in time.
    let (_, two, _) = settled(now);
    two.share_registry.ended(&away, 1, now);
    assert!(
        !two.share_registry
            .connected(&away, 2, now + ABSENT_AFTER - SECOND)
    );
    assert_eq!(two.share_registry.send(&away).len(), 1, "it keeps its part");
    // It is not, and the replica that it comes back to does not divide.
    let (mut one, mut two, mut divider) = settled(now);
    two.share_registry.ended(&away, 1, now);
    one.receive(&two, now);
    let later = now + ABSENT_AFTER + SECOND;
    divide(
        &one.share_registry,
        &mut divider,
        &demanded(&with_limit(100)),
        later,
    );
    one.serves();
    assert_eq!(one.use_of["uid-api-1"], 100_000);
    two.receive(&one, later);
    assert!(
        two.share_registry.connected(&away, 2, later),
        "it has to forget"
    );
    assert_eq!(two.share_registry.send(&away), []);
    *two.use_of.get_mut("uid-api-2").unwrap() = 0;
    let demand = demanded(&with_limit(100));
    go_on(&mut one, &mut two, &mut divider, &demand, later);
    assert_eq!(two.use_of["uid-api-2"], 50_000);
}

#[tokio::test(start_paused = true)]
async fn disconnected_pods_share_is_kept_for_limited_time() {
    let (mut one, _models) = leading().await;
    end(&mut one);
    serve_for(&mut one, ABSENT_AFTER - SECOND).await;
    assert_eq!(one.use_of["uid-api-1"], 50_000, "it may come back");
    serve_for(&mut one, 3 * SECOND).await;
    assert_eq!(one.use_of["uid-api-1"], 100_000);
}

#[tokio::test(start_paused = true)]
async fn pod_removed_from_service_frees_its_share() {
    let (mut one, models) = leading().await;
    // Its stream stays, and its proxy has no limit any more: it is sent no share.
    one.use_of.remove("uid-api-2");
    models.send_replace(Some(with_second(None)));
    serve_for(&mut one, 4 * SECOND).await;
    assert_eq!(one.use_of["uid-api-1"], 100_000);
    // It comes back with what it had.
    one.use_of.insert("uid-api-2".into(), 50_000);
    models.send_replace(Some(with_second(Some(second(true, false)))));
    serve_for(&mut one, 4 * SECOND).await;
    assert!(one.use_of.values().all(|part| *part == 50_000));
}

#[tokio::test(start_paused = true)]
async fn pod_not_ready_or_ending_gives_its_part_away() {
    for terminating in [false, true] {
        for has_stream in [true, false] {
            let (mut one, models) = leading().await;
            if !has_stream {
                end(&mut one);
            }
            models.send_replace(Some(with_second(Some(second(false, terminating)))));
            serve_for(&mut one, SECOND).await;
            assert_eq!(one.use_of["uid-api-1"], 50_000, "callers may not know yet");
            serve_for(&mut one, 3 * SECOND).await;
            assert_eq!(
                one.use_of["uid-api-1"], 100_000,
                "{terminating} {has_stream}"
            );
        }
    }
}

#[tokio::test(start_paused = true)]
async fn parts_follow_what_pods_are_offered() {
    let (mut one, _models) = leading().await;
    let offer = |one: &Replica, pod: &str, thousandths| {
        let load = v1::OfferedLoad {
            of: Some(share_of("all").message()),
            thousandths,
            refused: thousandths > 50_000,
        };
        // Of a limit that it has no part of it says nothing.
        let other = v1::OfferedLoad {
            of: Some(share_of("other").message()),
            ..load.clone()
        };
        let loads = vec![load, other];
        one.share_registry
            .offered(&pod.into(), &v1::OfferedLoads { loads });
    };
    offer(&one, "uid-api-1", 80_000);
    serve_for(&mut one, 3 * SECOND).await;
    assert!(
        one.use_of.values().all(|part| *part == 50_000),
        "of one it is not known"
    );
    offer(&one, "uid-api-2", 10_000);
    serve_for(&mut one, 4 * SECOND).await;
    assert_eq!(one.use_of["uid-api-1"], 85_000);
    assert_eq!(one.use_of["uid-api-2"], 15_000);
    let (_, news) = one.share_registry.own_since(0);
    let reported: Vec<usize> = news
        .unwrap()
        .held
        .iter()
        .map(|pod| pod.offered.len())
        .collect();
    assert_eq!(reported, [1, 1]);
    // A new stream has said nothing yet, as that of an older proxy.
    one.share_registry
        .connected(&"uid-api-2".into(), 3, Instant::now());
    serve_for(&mut one, 4 * SECOND).await;
    assert!(one.use_of.values().all(|part| *part == 50_000));
}

#[test]
fn offered_loads_come_from_other_replicas() {
    let now = Instant::now();
    let (mut one, two, _) = settled(now);
    let of = Some(share_of("all").message());
    let load = v1::OfferedLoad {
        of,
        thousandths: 7,
        refused: true,
    };
    let uid: Arc<str> = "uid-api-2".into();
    let loads = vec![load];
    two.share_registry
        .offered(&uid, &v1::OfferedLoads { loads });
    one.receive(&two, now);
    let key = (Arc::clone(&uid), share_of("all"));
    assert_eq!(one.share_registry.pods().offered[&key].thousandths, 7);
    two.share_registry.ended(&uid, 1, now);
    one.receive(&two, now);
    assert!(one.share_registry.pods().offered.is_empty());
}

#[tokio::test(start_paused = true)]
async fn deleted_pods_share_frees_after_stream_closes() {
    let (mut one, models) = leading().await;
    let all = with_limit(100);
    let rest = all.objects().iter();
    let rest = rest.filter(|object| object["metadata"]["name"] != "api-2");
    let rest = rest.cloned().fold(Cluster::default(), Cluster::with);
    models.send_replace(Some(compiled(&rest)));
    serve_for(&mut one, SECOND).await;
    assert_eq!(one.use_of["uid-api-1"], 50_000, "the other may be serving");
    end(&mut one);
    serve_for(&mut one, 2 * SECOND).await;
    assert_eq!(one.use_of["uid-api-1"], 100_000);
}

#[test]
fn new_replica_makes_no_pod_forget_unknown_shares() {
    let share_registry = ShareRegistry::default();
    let now = Instant::now();
    assert!(!share_registry.connected(&"uid-1".into(), 1, now + SECOND));
    // After a while it would know.
    assert!(share_registry.connected(&"uid-2".into(), 2, now + KEPT + SECOND));
    // A pod that only changes its stream keeps what it has.
    assert!(!share_registry.connected(&"uid-2".into(), 3, now + KEPT + SECOND));
}

#[test]
fn pod_with_changed_limits_is_sent_shares_again() {
    let (share_registry, uid) = (ShareRegistry::default(), Arc::from("uid-1"));
    share_registry.connected(&uid, 1, Instant::now());
    share_registry.give(TERM, vec![message_of(&uid, "all", 1)]);
    assert_eq!(serve(&share_registry, &uid), 1);
    assert_eq!(serve(&share_registry, &uid), 0);
    share_registry.resend(&uid);
    assert_eq!(serve(&share_registry, &uid), 1);
    assert_eq!(share_registry.taken_of(TERM), [(uid, share_of("all"), 1)]);
}

#[test]
fn new_replica_receives_all_shares_of_many_pods() {
    let (share_registry, now) = (ShareRegistry::default(), Instant::now());
    let pods: Vec<Arc<str>> = (0..1500).map(|at| format!("uid-{at}").into()).collect();
    for (at, uid) in pods.iter().enumerate() {
        share_registry.connected(uid, at as u64, now);
    }
    let all = pods.iter().zip(1..);
    share_registry.give(
        TERM,
        all.map(|(uid, number)| message_of(uid, "all", number))
            .collect(),
    );
    for uid in &pods {
        assert_eq!(serve(&share_registry, uid), 1);
    }
    let (other, mut since) = (ShareRegistry::default(), 0);
    loop {
        let (until, news) = share_registry.own_since(since);
        since = until;
        let Some(news) = news else { break };
        other.receive(IpAddr::from([10, 0, 0, 1]), &news, now);
    }
    for uid in &pods {
        other.connected(uid, 1, now);
        assert_eq!(other.send(uid).len(), 1, "{uid}");
    }
}

// Claims: attack-78
#[test]
fn share_updates_reach_replicas_in_one_mebibyte_messages() {
    let (share_registry, now) = (ShareRegistry::default(), Instant::now());
    let pods: Vec<Arc<str>> = (0..60)
        .map(|at| format!("{at}-{}", "u".repeat(32 * 1024)).into())
        .collect();
    for (at, uid) in pods.iter().enumerate() {
        share_registry.connected(uid, at as u64, now);
    }
    let all = pods.iter().zip(1..);
    let all = all
        .map(|(uid, number)| message_of(uid, "all", number))
        .collect();
    share_registry.give(TERM, all);
    let (mut since, mut received, mut messages) = (0, BTreeSet::new(), 0);
    while let (until, Some(news)) = share_registry.own_since(since) {
        let bytes = news.encoded_len();
        assert!(bytes <= TOGETHER_BYTES, "{bytes} in one message");
        received.extend(news.divided.into_iter().map(|pod| pod.uid));
        messages += 1;
        since = until;
    }
    assert_eq!(received.len(), pods.len());
    assert!(messages >= 4, "{messages}");
}

#[tokio::test(start_paused = true)]
async fn shares_of_limits_that_no_policy_says_are_forgotten() {
    let (share_registry, uid) = (ShareRegistry::default(), Arc::from("uid-api-1"));
    share_registry.connected(&uid, 1, Instant::now());
    let both = vec![message_of(&uid, "all", 1), message_of(&uid, "gone", 2)];
    share_registry.give(TERM, both);
    assert_eq!(serve(&share_registry, &uid), 2);
    let (_models, latest) = watch::channel(Some(compiled(&with_limit(100))));
    let keeping = tokio::spawn(share_registry.clone().keep(latest));
    let known = || {
        let (_, news) = share_registry.own_since(0);
        let news = news.unwrap();
        let all = news.divided.iter().chain(&news.held);
        all.map(|pod| pod.shares.len()).collect::<Vec<_>>()
    };
    // One look does not do: this replica may be the last to see a limit that is new.
    tokio::time::sleep(KEPT / 2 + SECOND).await;
    assert_eq!(known(), [2, 2]);
    tokio::time::sleep(KEPT / 2).await;
    assert_eq!(known(), [1, 1]);
    keeping.abort();
    share_registry.resend(&uid);
    let [share] = &share_registry.send(&uid)[..] else {
        panic!("not one")
    };
    let of = share.of.as_ref().and_then(ShareOf::read);
    assert_eq!(of, Some(share_of("all")));
}
