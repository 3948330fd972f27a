//! What is remembered, for how long, and how it is written down.

use super::*;
use crate::testing::town::key;
use crds::observe::NodeKind;

fn edge(edges: &mut Edges, number: usize) -> EdgeRef {
    let node = |name: &str| NodeKey {
        kind: NodeKind::Deployment,
        object: key("shop", name),
    };
    let key = EdgeKey {
        from: node(&format!("web-{number}")),
        to: NodeKey::elsewhere(NodeKind::External, "db.example.com"),
        service: Some(key("shop", "db")),
        port: 5432,
        backend: None,
        split: None,
        protocol: Protocol::Tcp,
    };
    edges.get(key).unwrap()
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
fn edge_that_was_called_once_comes_back_from_what_was_written() {
    let (mut edges, mut memory) = (Edges::default(), Memory::default());
    for number in 0..100 {
        let edge = edge(&mut edges, number);
        memory.see(&edge, at(50 * DAY + 1234));
    }
    let pieces = memory.pieces().unwrap();
    assert_eq!(pieces.len(), PIECES);
    let (mut edges, mut other) = (Edges::default(), Memory::default());
    let read = pieces
        .iter()
        .map(|piece| other.read(piece, &mut edges).unwrap());
    assert_eq!(read.sum::<usize>(), 100);
    let seen = other.get(&edge(&mut edges, 7)).unwrap();
    assert_eq!((seen.first, seen.last), (50 * DAY + 1234, 50 * DAY + 1234));
    // Last seen is written to the hour, but never before the first.
    memory.see(&edge(&mut edges, 7), at(50 * DAY));
    assert_eq!(
        other.pieces().unwrap(),
        other.pieces().unwrap(),
        "the same bytes"
    );
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
    for piece in other.pieces().unwrap() {
        memory.read(&piece, &mut edges).unwrap();
    }
    let both = Seen {
        first: 5 * HOUR,
        last: 20 * HOUR,
    };
    assert_eq!(memory.get(&one), Some(both));
}

#[test]
fn longest_unseen_goes_when_there_are_too_many() {
    let (mut edges, mut memory) = (Edges::default(), Memory::default());
    for number in 0..MAX_REMEMBERED + 5 {
        let edge = edge(&mut edges, number);
        memory.see(&edge, at(100 * DAY + number as u64));
    }
    assert_eq!(memory.tidy(100 * DAY, MONTH), 5);
    assert_eq!((memory.len(), memory.dropped), (MAX_REMEMBERED, 5));
    assert_eq!(memory.get(&edge(&mut edges, 4)), None);
    assert!(memory.get(&edge(&mut edges, 5)).is_some());
}

#[test]
fn edge_is_forgotten_after_the_time_that_was_asked_for() {
    let (mut edges, mut memory) = (Edges::default(), Memory::default());
    let one = edge(&mut edges, 1);
    memory.see(&one, at(100 * DAY));
    memory.tidy(130 * DAY, MONTH);
    assert!(memory.get(&one).is_some());
    memory.tidy(130 * DAY + 1, MONTH);
    assert!(memory.get(&one).is_none());
}

#[test]
fn twenty_thousand_edges_with_long_names_fit_into_what_the_api_server_takes() {
    let (mut edges, mut memory) = (Edges::default(), Memory::default());
    for number in 0..MAX_REMEMBERED {
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
        let edge = edges.get(EdgeKey {
            from: node("caller"),
            to: node("callee"),
            backend: service.clone(),
            split: service.clone(),
            service,
            port: 8080,
            protocol: Protocol::Http1,
        });
        memory.see(&edge.unwrap(), at(100 * DAY + number as u64));
    }
    let pieces = memory.pieces().unwrap();
    assert!(pieces.iter().all(|piece| piece.len() <= MAX_PIECE));
    let mut other = Memory::default();
    let read = pieces
        .iter()
        .map(|piece| other.read(piece, &mut edges).unwrap());
    assert_eq!(read.sum::<usize>(), MAX_REMEMBERED);
}

#[test]
fn broken_piece_is_told_and_nothing_of_it_taken() {
    let (mut edges, mut memory) = (Edges::default(), Memory::default());
    memory.see(&edge(&mut edges, 1), at(DAY));
    let piece = memory.pieces().unwrap();
    let piece = piece.iter().max_by_key(|piece| piece.len()).unwrap();
    let mut other = Memory::default();
    assert!(other.read(&piece[..piece.len() / 2], &mut edges).is_err());
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
