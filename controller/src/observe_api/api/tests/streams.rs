//! Streams of the graph: how they begin and end, and how many there may be.

use super::*;
use crate::aggregated::bodies::Share;
use crate::graph::follow::GraphWindow;
use crate::testing::cluster::pod;

impl Bench {
    /// A workload of `shop` called `api` by a hundred ports in this slot: a line of these edges is
    /// longer than one that needs no room.
    async fn called_by_many_ports(&self, interval: u64) {
        let now = SystemTime::now();
        let reporter = crate::observe::reports::Reporter {
            uid: "shop-web".into(),
            pod: model::world::ObjectKey::new("shop", "web-1"),
            account: None,
        };
        let edges = (1..=100).map(|port| wire::v1::Edge {
            port,
            ..seen_by_client("shop/api", 3, 1)
        });
        let report = wire::v1::Report {
            process: 1,
            slot: interval * INTERVAL,
            edges: edges.collect(),
            ..wire::v1::Report::default()
        };
        self.reports.take(&reporter, report, true, now);
        self.api.context.graph.look(now, true).await;
    }

    /// All the room there is for what waits for its readers.
    fn all_room(&self) -> Vec<Share> {
        let answers = &self.api.context.answers;
        let mut held = Vec::new();
        for name in ["one", "two"] {
            let user = User {
                name: name.to_owned(),
                ..User::default()
            };
            held.push(answers.of(&user).reserve(28 * 1024 * 1024).unwrap());
        }
        while let Ok(share) = answers.reserve(64 * 1024) {
            held.push(share);
        }
        held
    }
}

#[tokio::test(start_paused = true)]
async fn stream_starts_complete_closes_itself_and_can_resume() {
    let bench = Bench::new();
    bench.call().await;
    let follow = bench.api.context.graph.clone().follow(|| true);
    tokio::spawn(follow);
    let started = tokio::time::Instant::now();
    let answer = bench
        .send(
            "admin",
            Method::GET,
            "graphs/live?watch=true",
            String::new(),
        )
        .await;
    let mut body = answer.into_body();
    let first = line(&mut body).await.unwrap();
    assert_eq!(first["edges"].as_array().unwrap().len(), 1);
    assert!(first["metadata"].get("changes").is_none());
    let mut last = first.clone();
    while let Some(next) = line(&mut body).await {
        assert_eq!(next["metadata"]["changes"], true);
        last = next;
    }
    assert_eq!(last["metadata"]["last"], true);
    assert!(
        started.elapsed() < Duration::from_secs(55),
        "{:?}",
        started.elapsed()
    );
    assert!(started.elapsed() >= Duration::from_secs(50));
    let since = last["metadata"]["end"].as_str().unwrap();
    let path = format!("graphs/live?watch=true&since={since}");
    let mut body = bench
        .send("admin", Method::GET, &path, String::new())
        .await
        .into_body();
    let again = line(&mut body).await.unwrap();
    assert_eq!(again["metadata"]["changes"], true);
    // What was shown long ago is not kept: it starts anew.
    let path = "graphs/live?watch=true&since=2020-01-01T00:00:00Z";
    let mut body = bench
        .send("admin", Method::GET, path, String::new())
        .await
        .into_body();
    assert!(
        line(&mut body).await.unwrap()["metadata"]
            .get("changes")
            .is_none()
    );
}

#[tokio::test]
async fn graph_streams_have_user_and_total_limits_until_closed() {
    let bench = Bench::new();
    let path = "graphs/live?watch=true";
    let mut open = Vec::new();
    for _ in 0..MAX_USER_STREAMS {
        open.push(bench.send("admin", Method::GET, path, String::new()).await);
    }
    assert!(open.iter().all(|answer| answer.status() == 200));
    let more = bench.send("admin", Method::GET, path, String::new()).await;
    assert_eq!(more.status(), 429);
    // It is not known when one is closed, and a client that is given a time retries by itself.
    assert!(!more.headers().contains_key("retry-after"));
    let (_, body) = read(more).await;
    assert!(body["details"]["retryAfterSeconds"].is_null(), "{body}");
    let shop = "namespaces/shop/graphs/live?watch=true";
    assert_eq!(
        bench
            .send("viewer", Method::GET, shop, String::new())
            .await
            .status(),
        200
    );
    // A plain call needs no permit of a stream.
    assert_eq!(bench.get("admin", "graphs/live").await.0, 200);
    assert_eq!(bench.api.context.metrics.streams.get(), 8);
    open.pop();
    let again = bench.send("admin", Method::GET, path, String::new()).await;
    assert_eq!(again.status(), 200);
    drop((open, again));
    assert_eq!(bench.api.context.metrics.streams.get(), 0);
    assert_eq!(bench.api.streams.available_permits(), MAX_STREAMS);
}

#[tokio::test]
async fn stream_is_refused_with_retry_if_snapshot_lacks_room() {
    let bench = Bench::new();
    bench
        .called_by_many_ports(interval_of(SystemTime::now()) - 1)
        .await;
    let held = bench.all_room();
    let path = "graphs/live?watch=true";
    // One that is resumed long after starts complete as well.
    let late = format!("{path}&since=2020-01-01T00:00:00Z");
    let open = async |path: &str| bench.send("admin", Method::GET, path, String::new()).await;
    for path in [path, late.as_str()] {
        let full = open(path).await;
        assert_eq!(full.status(), 429, "{path}");
        assert!(full.headers().contains_key("retry-after"), "{path}");
        assert_eq!(bench.api.context.metrics.streams.get(), 0, "given back");
    }
    drop(held);
    let started = open(path).await;
    assert_eq!(started.status(), 200);
    let first = line(&mut started.into_body()).await.unwrap();
    assert!(!first["edges"].as_array().unwrap().is_empty(), "{first}");
}

/// Until it has started it holds what calls wait for.
#[tokio::test]
async fn stream_begins_while_lines_of_others_are_made() {
    let bench = Bench::new();
    let (end, ends) = std::sync::mpsc::sync_channel::<()>(1);
    let workers = bench.api.workers.clone();
    let others = tokio::spawn(async move {
        let work = move || {
            // Should the stream wait for it, that is the end.
            let _ = ends.recv_timeout(Duration::from_secs(5));
        };
        workers.run_for_stream(work).await.unwrap();
    });
    tokio::task::yield_now().await;
    let path = "graphs/live?watch=true";
    let started = bench.send("admin", Method::GET, path, String::new()).await;
    assert_eq!(started.status(), 200);
    assert!(end.send(()).is_ok(), "it waited for lines of others");
    others.await.unwrap();
}

/// Of 100 edges that it was shown nothing changed.
#[tokio::test(start_paused = true)]
async fn resumed_stream_with_few_changes_starts_without_full_room() {
    let bench = Bench::new();
    tokio::spawn(bench.api.context.graph.clone().follow(|| true));
    // One that is starting up does not know what was shown.
    tokio::time::sleep(Duration::from_secs(40)).await;
    let ended = SystemTime::now() - Duration::from_secs(15);
    bench.called_by_many_ports(interval_of(ended) - 4).await;
    let window = GraphWindow {
        intervals: 2,
        ..GraphWindow::default()
    };
    let shown = bench.api.context.graph.answer(&window, ended);
    let path = "graphs/live?watch=true&window=10s&quiet=1";
    let open = async |path: &str| bench.send("admin", Method::GET, path, String::new()).await;
    let held = bench.all_room();
    assert_eq!(open(path).await.status(), 429, "all of it");
    let started = open(&format!("{path}&since={}", shown.metadata.end)).await;
    assert_eq!(started.status(), 200);
    let first = line(&mut started.into_body()).await.unwrap();
    assert_eq!(first["metadata"]["changes"], true, "{first}");
    drop(held);
}

/// What its reader was shown last is what the next one is compared with, and not what there is
/// when it begins.
#[tokio::test(start_paused = true)]
async fn resumed_stream_reports_removed_and_changed_edges() {
    let bench = Bench::new();
    tokio::spawn(bench.api.context.graph.clone().follow(|| true));
    // One that is starting up does not know what was shown.
    tokio::time::sleep(Duration::from_secs(40)).await;
    let ended = SystemTime::now() - Duration::from_secs(15);
    bench.called_in(interval_of(ended) - 1, &["shop/web"]).await;
    let window = GraphWindow {
        intervals: 2,
        ..GraphWindow::default()
    };
    let shown = bench.api.context.graph.answer(&window, ended);
    assert_eq!(shown.edges.len(), 1);
    let path = format!(
        "graphs/live?watch=true&window=10s&since={}",
        shown.metadata.end
    );
    let taken_up = async || {
        let answer = bench.send("admin", Method::GET, &path, String::new()).await;
        line(&mut answer.into_body()).await.unwrap()
    };

    let more = read_only().with(pod("web-1", "10.0.0.13", "web"));
    bench.becomes(&more);
    tokio::time::sleep(Duration::from_secs(15)).await;
    let events = taken_up().await;
    assert_eq!(events["metadata"]["changes"], true, "{events}");
    assert_eq!(events["removed"], json!([shown.edges[0].id]), "{events}");
    let mut nodes = events["nodes"].as_array().unwrap().iter();
    let web = nodes.find(|node| node["id"] == "shop/Deployment/web");
    assert_eq!(web.unwrap()["pods"], 1, "{events}");

    // Which workloads there were then is not kept: when one went, all is sent.
    bench.becomes(&read_only());
    tokio::time::sleep(Duration::from_secs(15)).await;
    let events = taken_up().await;
    assert!(events["metadata"].get("changes").is_none(), "{events}");
}
