//! More edges than their ConfigMap can hold.
//!
//! Claims: observe-143

use std::fmt::Write as _;

use crds::observe::{NodeKind, Protocol};

use super::*;
use crate::graph::key::{EdgeKey, NodeKey};
use crate::graph::memory::Seen;
use crate::testing::topology::key;

/// Remembers so many edges of one shard, by names that cannot be packed.
fn fill(graph: &Graph, shard: usize, count: u64) {
    let mut noise = 1_u64;
    let mut long_name = || {
        let mut digits = String::new();
        for _ in 0..30 {
            noise = noise
                .wrapping_mul(6_364_136_223_846_793_005)
                .wrapping_add(1_442_695_040_888_963_407);
            write!(digits, "{:08x}", noise >> 32).unwrap();
        }
        key("shop", &digits)
    };
    graph.with_memory(|memory, edges| {
        for time in 0..count {
            let [from, to] = [long_name(), long_name()].map(|object| NodeKey {
                kind: NodeKind::Deployment,
                object,
            });
            let by = from.clone();
            let mut like = EdgeKey {
                from,
                to,
                service: Some(long_name()),
                port: 1,
                backend: Some(long_name()),
                split: Some(long_name()),
                rule: None,
                protocol: Protocol::Http1,
                account: None,
            };
            let edge = loop {
                let edge = edges.get(like.clone(), &by).unwrap();
                let digit = edge.id().bytes().last().unwrap();
                if usize::from(digit) % SHARDS == shard {
                    break edge;
                }
                like.port += 1;
            };
            let seen = Seen {
                first: time,
                last: time,
            };
            memory.see(&edge, seen);
        }
    });
}

#[tokio::test]
async fn edges_exceeding_their_configmap_are_counted_and_reported() {
    const EDGES: u64 = 1_700;
    let api = cluster();
    let metrics = GraphMetrics::default();
    let mut holder = checkpointer(&api, true);
    holder.graph = Graph::new(
        reports(),
        Arc::new(RwLock::new(inventory())),
        watch::channel(None).1,
        Duration::from_secs(30 * 24 * 3600),
        metrics.clone(),
    );
    fill(&holder.graph, 3, 10);
    assert!(holder.write().await);
    assert_eq!(metrics.times_dropped("unwritten"), 0, "all have room");
    fill(&holder.graph, 3, EDGES);
    assert!(holder.write().await);
    let left_out = metrics.times_dropped("unwritten");
    assert!(left_out > 0);
    let reader = checkpointer(&api, false);
    assert!(reader.read(&mut Versions::default()).await);
    let read = reader.graph.with_memory(|memory, _| memory.len());
    assert_eq!(read as u64 + left_out, EDGES);
    tokio::time::sleep(Duration::from_millis(300)).await;
    let events = api.below("/apis/events.k8s.io/v1/");
    let reported = events.iter().map(|event| {
        let name = &event["regarding"]["name"];
        (event["reason"].as_str().unwrap(), name.as_str().unwrap())
    });
    let reported: Vec<(&str, &str)> = reported.collect();
    assert_eq!(reported, [("GraphTruncated", "weft-graph-3")]);
}
