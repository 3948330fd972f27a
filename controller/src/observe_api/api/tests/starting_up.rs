//! A controller that is starting up and does not know yet which calls are remembered.
//!
//! Claims: observe-10

use super::*;
use crate::graph::follow::UNREAD;

impl Bench {
    /// It has not read yet what is remembered.
    pub(super) fn begin_anew(&mut self) {
        let context = &mut Arc::get_mut(&mut self.api).unwrap().context;
        context.graph = Graph::new(
            self.reports.clone(),
            Arc::clone(&context.followed.inventory),
            context.latest.clone(),
            Duration::from_secs(3600),
            GraphMetrics::default(),
        );
    }
}

// Claims: observability-3
#[tokio::test]
async fn graph_is_unavailable_before_known_calls_are_loaded() {
    let mut bench = Bench::new();
    bench.begin_anew();
    let paths = [
        "graphs/live",
        "graphs/live?quiet=1&gone=1",
        "graphs/live?watch=true",
    ];
    for path in paths {
        let answer = bench.send("admin", Method::GET, path, String::new()).await;
        assert!(answer.headers().contains_key("retry-after"), "{path}");
        let (status, body) = read(answer).await;
        assert_eq!(status, 503, "{path}: {body}");
        // For clients that read no headers.
        assert_eq!(body["details"]["retryAfterSeconds"], 1, "{path}: {body}");
        let message = body["message"].as_str().unwrap();
        assert!(message.contains("is starting up"), "{message}");
    }
    // What is wrong with a query is reported at once.
    assert_eq!(bench.get("admin", "graphs/live?window=1h").await.0, 400);
    bench.api.context.graph.startup().set_loaded();
    for path in paths {
        let answer = bench.send("admin", Method::GET, path, String::new()).await;
        assert_eq!(answer.status(), 200, "{path}");
    }
}

#[tokio::test]
async fn graph_with_unreadable_history_is_served_as_incomplete() {
    let mut bench = Bench::new();
    bench.begin_anew();
    bench.api.context.graph.startup().grow();
    let (status, body) = bench.get("admin", "graphs/live").await;
    assert_eq!(status, 200, "{body}");
    assert_eq!(body["metadata"]["incomplete"], UNREAD, "{body}");
    bench.api.context.graph.startup().set_loaded();
    let (_, body) = bench.get("admin", "graphs/live?quiet=1").await;
    assert_eq!(body["metadata"]["unsettled"], true, "{body}");
}
