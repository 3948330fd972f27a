//! What is remembered, for how long, and how it is persisted.
//!
//! Claims: observe-3, observe-4, observe-44

use crds::observe::NodeKind;

use super::*;
use crate::testing::topology::key;

fn edge(edges: &mut Edges, number: usize) -> EdgeRef {
    let from = NodeKey {
        kind: NodeKind::Deployment,
        object: key(&format!("shop-{}", number % 4), &format!("web-{number}")),
    };
    let by = from.clone();
    let key = EdgeKey {
        from,
        to: NodeKey::elsewhere(NodeKind::External, "db.example.com"),
        service: Some(key("shop", "db")),
        port: 5432,
        backend: None,
        split: None,
        rule: None,
        protocol: Protocol::Tcp,
        account: None,
    };
    edges.get(key, &by).unwrap()
}

const DAY: u64 = 24 * HOUR;
const MONTH: Duration = Duration::from_secs(30 * DAY);

fn at(time: u64) -> Seen {
    Seen {
        first: time,
        last: time,
    }
}

#[test]
fn edge_called_once_is_loaded_from_persisted_shards() {
    let (mut edges, mut memory) = (Edges::default(), Memory::default());
    for number in 0..100 {
        let edge = edge(&mut edges, number);
        memory.see(&edge, at(50 * DAY + 1234));
    }
    let shards = memory.shards().unwrap();
    assert_eq!(shards.len(), SHARDS);
    let (mut edges, mut other) = (Edges::default(), Memory::default());
    let read = shards
        .iter()
        .map(|shard| other.read(shard, &mut edges).unwrap());
    assert_eq!(read.sum::<usize>(), 100);
    let seen = other.get(&edge(&mut edges, 7)).unwrap();
    assert_eq!((seen.first, seen.last), (50 * DAY + 1234, 50 * DAY + 1234));
    // Last seen is written to the hour, but never before the first.
    assert_eq!(other.shards().unwrap(), shards, "the same bytes");
}

#[test]
fn what_two_replicas_wrote_is_put_together() {
    let mut edges = Edges::default();
    let one = edge(&mut edges, 1);
    let (mut memory, mut other) = (Memory::default(), Memory::default());
    memory.see(
        &one,
        Seen {
            first: 10 * HOUR,
            last: 20 * HOUR,
        },
    );
    other.see(
        &one,
        Seen {
            first: 5 * HOUR,
            last: 12 * HOUR,
        },
    );
    for shard in other.shards().unwrap() {
        memory.read(&shard, &mut edges).unwrap();
    }
    let both = Seen {
        first: 5 * HOUR,
        last: 20 * HOUR,
    };
    assert_eq!(memory.get(&one), Some(both));
}

// Claims: observability-3
#[test]
fn longest_unseen_goes_when_there_are_too_many() {
    let (mut edges, mut memory) = (Edges::default(), Memory::default());
    for number in 0..MAX_PERSISTED + 5 {
        let edge = edge(&mut edges, number);
        memory.see(&edge, at(100 * DAY + number as u64));
    }
    assert_eq!(memory.tidy(100 * DAY, MONTH), 5);
    assert_eq!((memory.len(), memory.dropped), (MAX_PERSISTED, 5));
    assert_eq!(memory.get(&edge(&mut edges, 4)), None);
    assert!(memory.get(&edge(&mut edges, 5)).is_some());
}

#[test]
fn edge_overflow_evicts_edges_of_largest_reporter() {
    let (mut edges, mut memory) = (Edges::default(), Memory::default());
    let report = |edges: &mut Edges, name: &str, port: usize| {
        let by = NodeKey {
            kind: NodeKind::Deployment,
            object: key(name, name),
        };
        let port = u16::try_from(port).unwrap();
        let from = by.clone();
        let like = edge(edges, 0).key().clone();
        edges.get(EdgeKey { from, port, ..like }, &by).unwrap()
    };
    // The node with few saw them long ago, and the one with many all the time.
    let few: Vec<EdgeRef> = (0..50)
        .map(|port| report(&mut edges, "few", port))
        .collect();
    for edge in &few {
        memory.see(edge, at(99 * DAY));
    }
    for many in 0..6 {
        for port in 0..3500 {
            let edge = report(&mut edges, &format!("many-{many}"), port);
            memory.see(&edge, at(100 * DAY + port as u64));
        }
    }
    let over = 50 + 6 * 3500 - MAX_PERSISTED;
    assert_eq!(memory.tidy(100 * DAY, MONTH), over);
    assert_eq!(memory.len(), MAX_PERSISTED);
    assert!(few.iter().all(|edge| memory.get(edge).is_some()));
    let kept = |many: usize| {
        let first = (0..3500).position(|port| {
            let edge = report(&mut edges, &format!("many-{many}"), port);
            memory.get(&edge).is_some()
        });
        3500 - first.unwrap()
    };
    let kept: Vec<usize> = (0..6).map(kept).collect();
    assert!(
        kept.iter().all(|kept| (3324..=3326).contains(kept)),
        "{kept:?}"
    );
}

#[test]
fn edge_is_forgotten_after_configured_retention() {
    let (mut edges, mut memory) = (Edges::default(), Memory::default());
    let one = edge(&mut edges, 1);
    memory.see(&one, at(100 * DAY));
    memory.tidy(130 * DAY, MONTH);
    assert!(memory.get(&one).is_some());
    memory.tidy(130 * DAY + HOUR, MONTH);
    assert!(memory.get(&one).is_none());
}

// Claims: observe-150
#[test]
fn persisted_edge_has_same_retention_as_seen_one() {
    let (mut edges, mut memory) = (Edges::default(), Memory::default());
    let one = edge(&mut edges, 1);
    let last = 100 * DAY + HOUR - 60;
    memory.see(
        &one,
        Seen {
            first: 99 * DAY,
            last,
        },
    );
    let mut other = Memory::default();
    for shard in memory.shards().unwrap() {
        other.read(&shard, &mut edges).unwrap();
    }
    // A rollout two minutes later, with the shortest time.
    let hour = Duration::from_secs(HOUR);
    for memory in [&mut memory, &mut other] {
        memory.tidy(last + 120, hour);
        assert!(memory.get(&one).is_some(), "it was called just now");
        memory.tidy(last + HOUR, hour);
        assert!(memory.get(&one).is_some());
        memory.tidy(last + HOUR + 60, hour);
        assert!(memory.get(&one).is_none());
    }
}

// Claims: observability-3
#[test]
fn twenty_thousand_long_edges_fit_api_server_limit() {
    let (mut edges, mut memory) = (Edges::default(), Memory::default());
    for number in 0..MAX_PERSISTED {
        let node = |side: &str| NodeKey {
            kind: NodeKind::Deployment,
            object: key(
                "a-namespace-of-some-length",
                &format!("{side}-of-a-long-name-{number}"),
            ),
        };
        let service = Some(key(
            "a-namespace-of-some-length",
            &format!("service-{number}"),
        ));
        let key = EdgeKey {
            from: node("caller"),
            to: node("callee"),
            backend: service.clone(),
            split: service.clone(),
            rule: None,
            service,
            port: 8080,
            protocol: Protocol::Http1,
            account: None,
        };
        let edge = edges.get(key, &node("caller"));
        memory.see(&edge.unwrap(), at(100 * DAY + number as u64));
    }
    let shards = memory.shards().unwrap();
    assert!(shards.iter().all(|shard| shard.len() <= MAX_SHARD));
    let mut other = Memory::default();
    let read = shards
        .iter()
        .map(|shard| other.read(shard, &mut edges).unwrap());
    assert_eq!(read.sum::<usize>(), MAX_PERSISTED);
}

#[test]
fn broken_shard_is_reported_and_skipped() {
    let (mut edges, mut memory) = (Edges::default(), Memory::default());
    memory.see(&edge(&mut edges, 1), at(DAY));
    let shard = memory.shards().unwrap();
    let shard = shard.iter().max_by_key(|shard| shard.len()).unwrap();
    let mut other = Memory::default();
    assert!(other.read(&shard[..shard.len() / 2], &mut edges).is_err());
    assert!(other.read(b"no gzip", &mut edges).is_err());
    let mut packer = GzEncoder::new(Vec::new(), Compression::default());
    let good = serde_json::to_string(&Line::of(edge(&mut edges, 1).key(), at(DAY))).unwrap();
    packer
        .write_all(format!("{good}\n{{\"from\": 1}}\n").as_bytes())
        .unwrap();
    let error = other
        .read(&packer.finish().unwrap(), &mut edges)
        .unwrap_err();
    assert!(
        error.to_string().starts_with("line 2 is no edge"),
        "{error}"
    );
    assert_eq!(other.len(), 0);
}

/// As versions wrote it down that took any name of an owner.
#[test]
fn invalid_node_name_drops_and_counts_edge_on_load() {
    let (mut edges, mut older) = (Edges::default(), Memory::default());
    let good = edge(&mut edges, 1);
    older.see(&good, at(DAY));
    let only_good = older.shards().unwrap();
    let rollout = NodeKey {
        kind: NodeKind::Rollout,
        object: key("shop", &"r".repeat(400_000)),
    };
    let calls = EdgeKey {
        from: rollout.clone(),
        ..good.key().clone()
    };
    let called = EdgeKey {
        to: rollout.clone(),
        ..good.key().clone()
    };
    for bad in [calls, called] {
        let bad = edges.get(bad, &rollout).unwrap();
        older.see(&bad, at(DAY));
    }
    let mut memory = Memory::default();
    for shard in older.shards().unwrap() {
        memory.read(&shard, &mut edges).unwrap();
    }
    assert_eq!((memory.len(), memory.dropped), (1, 2));
    assert!(memory.get(&good).is_some(), "the control");
    assert_eq!(memory.shards().unwrap(), only_good, "it is written no more");
}

// Claims: observability-3
#[test]
fn forgotten_edge_does_not_return_from_persisted_shards() {
    let (mut edges, mut memory) = (Edges::default(), Memory::default());
    let one = edge(&mut edges, 1);
    memory.see(&one, at(100 * DAY));
    let written = memory.shards().unwrap();
    memory.tidy(131 * DAY, MONTH);
    for shard in &written {
        memory.read(shard, &mut edges).unwrap();
    }
    assert!(memory.get(&one).is_none());
    let nothing = Memory::default().shards().unwrap();
    assert_eq!(memory.shards().unwrap(), nothing);
}

/// The first call of an edge is not lost by an upgrade, and none is there twice.
#[test]
fn older_versions_edge_merges_with_its_account_edge() {
    let (mut edges, mut memory) = (Edges::default(), Memory::default());
    let older = edge(&mut edges, 1);
    memory.see(&older, at(10 * DAY));
    let written = memory.shards().unwrap();
    let proven = EdgeKey {
        account: Some(key("shop-1", "web")),
        ..older.key().clone()
    };
    let proven = edges.get(proven, &older.key().from).unwrap();
    memory.see(&proven, at(20 * DAY));
    memory.tidy(20 * DAY, MONTH);
    let expected = Seen {
        first: 10 * DAY,
        last: 20 * DAY,
    };
    assert_eq!((memory.len(), memory.get(&proven)), (1, Some(expected)));
    // The older version writes it down for as long as it holds the Lease.
    for shard in &written {
        memory.read(shard, &mut edges).unwrap();
    }
    assert_eq!((memory.len(), memory.get(&proven)), (1, Some(expected)));
    let mut other = Memory::default();
    for shard in memory.shards().unwrap() {
        other.read(&shard, &mut edges).unwrap();
    }
    assert_eq!((other.len(), other.get(&proven)), (1, Some(expected)));
}

#[test]
fn written_shard_lacks_settled_but_not_fresh_edges() {
    let mut edges = Edges::default();
    let known = edge(&mut edges, 1);
    let own_shard = shard_of(&known);
    let (time, seen) = (50 * DAY, |first, last| Seen { first, last });
    let written = |stored: Option<Seen>| {
        let mut memory = Memory::default();
        if let Some(stored) = stored {
            memory.see(&known, stored);
        }
        memory.shard(own_shard).unwrap().0
    };
    let lacks = |here: Seen, written: &[u8], settled: u64| {
        let mut memory = Memory::default();
        memory.see(&known, here);
        memory.exceeds(own_shard, written, settled).unwrap()
    };
    let here = seen(time, time + 10);
    let settled = time + 60;
    // The edge is unknown there, began earlier, or was seen in a later hour.
    for there in [
        None,
        Some(seen(time + 5, time + 10)),
        Some(seen(time - DAY, time - 1)),
    ] {
        let shard = written(there);
        assert!(lacks(here, &shard, settled), "{there:?}");
        assert!(!lacks(here, &shard, time), "{there:?}: it is fresh");
    }
    for there in [here, seen(time - DAY, time + 5)] {
        assert!(!lacks(here, &written(Some(there)), settled), "{there:?}");
    }
    // Nor is it of another shard, or readable where it is none.
    let mut memory = Memory::default();
    memory.see(&known, here);
    let other = (own_shard + 1) % SHARDS;
    assert!(!memory.exceeds(other, &written(None), settled).unwrap());
    assert!(memory.exceeds(own_shard, b"no gzip", settled).is_err());
}
