//! Live queries: what a proxy responds while a client watches.
//!
//! Claims: observe-105, observe-107, observe-122

use std::future::pending;
use std::sync::Arc;

use policy::access_log::AccessLog;
use prometheus_client::registry::Registry;
use prost::Message as _;
use tokio::time::{Instant, sleep};
use tonic::transport::Endpoint;
use wire::v1::to_proxy::Message as ToProxy;

use super::*;
use crate::control::tests::{Bench, Ca};
use crate::http::watched::BodyEnd;
use crate::telemetry::Telemetry;
use crate::telemetry::call::{Call, CallKind};
use crate::telemetry::call_ends::CallEnds;
use crate::telemetry::labels::{LimitLabels, Security};
use crate::telemetry::metrics::Metrics;
use crate::telemetry::trace::CameFrom;

/// Bytes of a message that the controller takes.
const MESSAGE: usize = 32 * 1024;

fn ask(id: u64, what: Option<Question>) -> v1::Ask {
    v1::Ask {
        id,
        lasts: 5_000,
        what,
    }
}

fn config() -> Option<Question> {
    Some(Question::Config(v1::ConfigAsk {}))
}

fn answer(bench: &Bench, id: u64) -> Option<Answer> {
    let answered = bench.answered();
    let answered = answered.into_iter().find(|answered| answered.id == id)?;
    answered.what
}

#[tokio::test]
async fn queried_proxy_returns_its_configuration_in_separate_call() {
    let bench = Bench::start(&Ca::new()).await;
    let content = v1::resource::Content::Telemetry(v1::Telemetry::default());
    let resource = wire::version::stamp(v1::Resource {
        name: wire::names::TELEMETRY.to_owned(),
        version: String::new(),
        content: Some(content),
    });
    let batch = v1::Batch {
        id: 1,
        full: true,
        set: vec![resource.clone()],
        ..v1::Batch::default()
    };
    bench.send_message(ToProxy::Batch(batch)).await;
    assert_eq!(bench.answers(), 0, "no call before a question");
    bench.send_message(ToProxy::Ask(ask(7, config()))).await;
    bench.until(|bench| answer(bench, 7).is_some()).await;
    let Some(Answer::Config(reported)) = answer(&bench, 7) else {
        panic!("{:?}", bench.answered());
    };
    assert!(reported.last && reported.part == 0, "{reported:?}");
    assert_eq!(reported.identity, "spiffe://cluster.local/ns/shop/sa/web");
    assert_eq!(
        (reported.mtls.as_str(), reported.draining),
        ("strict", false)
    );
    assert_eq!(reported.enforcement, "enforce");
    let reported: Vec<(String, String)> = reported
        .resources
        .into_iter()
        .map(|one| (one.name, one.version))
        .collect();
    assert_eq!(reported, [(resource.name, resource.version)]);

    // A newer controller sends a query that this proxy does not know.
    bench.send_message(ToProxy::Ask(ask(8, None))).await;
    bench.until(|bench| answer(bench, 8).is_some()).await;
    let refused = answer(&bench, 8);
    assert!(matches!(refused, Some(Answer::Refused(_))), "{refused:?}");
    assert_eq!(bench.answers(), 1, "one call for all answers");

    // A query that a client reads and then leaves.
    bench.send_message(ToProxy::EndAsk(7)).await;
    let asks = || bench.control.config.telemetry.metrics.live_queries.get();
    bench.until(|_| asks() == 0).await;
}

fn trial(paths: usize) -> Option<Question> {
    let one = v1::HttpMatch {
        name: "m".to_owned(),
        path_regex: Some("/items".to_owned()),
        ..v1::HttpMatch::default()
    };
    let rule = v1::Rule {
        origin: Some(v1::ObjectRef {
            kind: "TrafficTarget".to_owned(),
            namespace: "shop".to_owned(),
            name: "t".to_owned(),
        }),
        http: Some(v1::HttpMatches {
            matches: vec![one; paths],
        }),
        ..v1::Rule::default()
    };
    Some(Question::Trial(v1::TrialAsk {
        rules: vec![rule],
        examples: 20,
        ..v1::TrialAsk::default()
    }))
}

#[tokio::test]
async fn dry_run_starts_immediately_and_stops_with_its_reader() {
    let bench = Bench::start(&Ca::new()).await;
    let dry_runs = || bench.control.config.dry_runs.any();
    assert!(!dry_runs());
    bench.send_message(ToProxy::Ask(ask(7, trial(64)))).await;
    bench.until(|bench| answer(bench, 7).is_some()).await;
    let first = answer(&bench, 7);
    assert_eq!(first, Some(Answer::Trial(v1::TrialCounts::default())));
    assert!(dry_runs());
    bench.send_message(ToProxy::EndAsk(7)).await;
    bench.until(|_| !dry_runs()).await;

    bench.send_message(ToProxy::Ask(ask(8, trial(65)))).await;
    bench.until(|bench| answer(bench, 8).is_some()).await;
    let Some(Answer::Refused(why)) = answer(&bench, 8) else {
        panic!("{:?}", bench.answered());
    };
    assert!(why.contains("65 patterns"), "{why}");
    assert!(!dry_runs());
}

/// A request that a tap shows.
fn request(telemetry: &Arc<Telemetry>) {
    let call_ends = CallEnds::Inbound {
        port: 8080,
        caller: "shop/web".into(),
        at: None,
        security: Security::mtls,
    };
    let mut call = Call::begin(telemetry, CallKind::Request, call_ends);
    call.note_request(
        &http::Request::new(()).into_parts().0,
        CameFrom::Application,
    );
    let (head, ()) = http::Response::new(()).into_parts();
    call.answered(&head, None).done(BodyEnd::Complete, 7, None);
}

#[tokio::test(start_paused = true)]
async fn tapped_requests_are_batched_within_max_wait() {
    let metrics = Metrics::register(&mut Registry::default());
    let telemetry = Arc::new(Telemetry::new(metrics, AccessLog::OFF));
    let ask = v1::TapAsk {
        max_per_second: 1_000,
        ..v1::TapAsk::default()
    };
    let watching = telemetry.taps.watch(ask);
    let (answers, mut received) = mpsc::channel(QUEUE);
    let showing = tokio::spawn(show(7, watching, answers));
    let first = received.recv().await.unwrap().what;
    assert!(matches!(first, Some(Answer::Summary(_))), "{first:?}");

    let began = Instant::now();
    request(&telemetry);
    sleep(BATCHED_WITHIN / 2).await;
    request(&telemetry);
    assert!(received.is_empty(), "the first went alone");
    for _ in 0..2 {
        let shown = received.recv().await.unwrap().what;
        assert!(matches!(shown, Some(Answer::Record(_))), "{shown:?}");
        assert_eq!(began.elapsed().as_millis(), BATCHED_WITHIN.as_millis());
    }

    // As many as may be shown in a second, and all at once.
    for _ in 0..998 {
        request(&telemetry);
        tokio::task::yield_now().await;
        while received.try_recv().is_ok() {}
    }
    let summary = loop {
        if let Some(Answer::Summary(summary)) = received.recv().await.unwrap().what {
            break summary;
        }
    };
    assert_eq!((summary.shown, summary.dropped), (1_000, 0), "{summary:?}");
    showing.abort();
}

#[tokio::test]
async fn proxy_answers_eight_queries_at_once_with_time_limit() {
    let bench = Bench::start(&Ca::new()).await;
    let no_server = Endpoint::from_static("http://127.0.0.1:1").connect_lazy();
    let mut asks = OpenQuestions::new(&bench.control, ControlClient::new(no_server));
    for id in 0..8 {
        asks.start(id, Duration::from_secs(60), pending());
    }
    let metrics = &bench.control.config.telemetry.metrics;
    let reached = || metrics.limits.at(&LimitLabels { limit: "asks" }).get();
    assert_eq!((metrics.live_queries.get(), reached()), (8, 0));
    asks.begin(ask(8, config()));
    assert!(!asks.open.contains_key(&8), "the ninth");
    assert_eq!(reached(), 1);
    asks.end(3);
    asks.begin(ask(8, config()));
    assert!(asks.open.contains_key(&8), "one has ended");

    for id in 0..9 {
        asks.end(id);
    }
    asks.start(1, Duration::from_millis(20), pending());
    assert_eq!(metrics.live_queries.get(), 1);
    sleep(Duration::from_millis(200)).await;
    asks.forget_ended();
    assert_eq!(metrics.live_queries.get(), 0, "its time is over");

    asks.start(1, Duration::from_secs(60), pending());
    drop(asks);
    assert_eq!(metrics.live_queries.get(), 0, "it ends with its stream");
}

#[test]
fn held_configuration_is_sent_in_message_sized_parts() {
    let summary = |count: usize| Summary {
        identity: "spiffe://cluster.local/ns/shop/sa/web".to_owned(),
        enforcement: "open".to_owned(),
        mtls: "permissive".to_owned(),
        draining: true,
        resources: (0..count)
            .map(|one| (format!("destination/10.0.0.1:{one}"), "0".repeat(64)))
            .collect(),
    };
    let alone = parts(summary(0));
    assert!(alone.len() == 1 && alone[0].last, "{alone:?}");
    let all = parts(summary(5_000));
    assert!(all.len() > 10 && all.len() <= MAX_PARTS, "{}", all.len());
    let mut reported = Vec::new();
    for (number, part) in all.iter().enumerate() {
        assert_eq!(part.part as usize, number);
        assert_eq!(part.last, number + 1 == all.len());
        let message = answered(u64::MAX, Answer::Config(part.clone()));
        assert!(message.encoded_len() < MESSAGE, "{number}");
        let resources = part.resources.iter();
        reported.extend(resources.map(|one| (one.name.clone(), one.version.clone())));
    }
    assert_eq!(reported, summary(5_000).resources);
}
