//! Bounds on the decoded size of each message.
//!
//! The elements of messages from proxies are counted before decoding. Controllers are not hostile
//! to each other nor to proxies, and their messages are decoded as they are, except those about
//! pods that have ended: one of these may hold a whole cluster.
//!
//! Claims: attack-84

use tonic::Streaming;
use tonic::body::Body;

use crate::codec::{Bounded, BoundedDecoder};
use crate::v1;

/// Parts of one message of a proxy: what it holds and wants (1 000 destinations and what they
/// refer to), refuses, or counts.
const PARTS: usize = 32_768;
/// Parts of all edges of a report: reasons, rules, routes and names.
const PARTS_OF_EDGES: usize = 131_072;
/// Pods that have ended, and their parts: names, and owners. A replica reports 5 000 at once,
/// with eight parts each.
const PARTS_OF_ENDED: usize = 65_536;
/// Numbers of the report in a message, and of the edges in a report.
const REPORT: u64 = 4;
const EDGES: u64 = 3;
/// Number of an early report in a message, and its bytes: numbers take eight times as much in
/// memory, and an early report with all of its 32 rows has less than half of this.
const EARLY_REPORT: u64 = 53;
const EARLY_BYTES: usize = 32 * 1024;
/// Number of the pods that have ended, in what replicas tell each other.
const ENDED: u64 = 53;

/// Why a message is not decoded.
const TOO_MANY: &str = "a message has more parts than there are to tell";
const MALFORMED: &str = "a message is no protobuf";

impl Bounded for v1::FromProxy {
    fn check(encoded: &[u8]) -> Result<(), &'static str> {
        // Over all fields: a field that is repeated is merged into what it was before.
        let (mut parts, mut parts_of_edges, mut early_bytes) = (0, 0, 0);
        for field in Fields(encoded) {
            let (number, message) = field?;
            if number == EARLY_REPORT {
                early_bytes += message.len();
                if early_bytes > EARLY_BYTES {
                    return Err(TOO_MANY);
                }
            }
            for part in Fields(message) {
                let (part, content) = part?;
                parts += 1;
                if parts > PARTS {
                    return Err(TOO_MANY);
                }
                if (number, part) == (REPORT, EDGES) {
                    let left = PARTS_OF_EDGES - parts_of_edges;
                    parts_of_edges += Fields(content).take(left + 1).count();
                    if parts_of_edges > PARTS_OF_EDGES {
                        return Err(TOO_MANY);
                    }
                }
            }
        }
        Ok(())
    }
}

impl Bounded for v1::Reports {
    fn check(encoded: &[u8]) -> Result<(), &'static str> {
        let mut left = PARTS_OF_ENDED;
        for field in Fields(encoded) {
            let (number, pod) = field?;
            if number == ENDED {
                let parts = 1 + Fields(pod).take(left).count();
                left = left.checked_sub(parts).ok_or(TOO_MANY)?;
            }
        }
        Ok(())
    }
}

macro_rules! unbounded {
    ($($message:ident),* $(,)?) => {
        $(impl Bounded for v1::$message {})*
    };
}

// The first three are small by the bounds of their calls.
unbounded!(
    CertifyRequest,
    Answered,
    ObserveRequest,
    ReportsRequest,
    ReplicaAsk,
    CertifyResponse,
    ToProxy,
    AnswerEnd,
    Observed,
    ReplicaAnswered,
);

/// Fields of an encoded message that have a length, with their numbers: texts, bytes and
/// messages. What is no protobuf ends them.
struct Fields<'a>(&'a [u8]);

impl<'a> Iterator for Fields<'a> {
    type Item = Result<(u64, &'a [u8]), &'static str>;

    fn next(&mut self) -> Option<Self::Item> {
        while !self.0.is_empty() {
            match self.field() {
                Some(Some(field)) => return Some(Ok(field)),
                Some(None) => {}
                None => {
                    self.0 = &[];
                    return Some(Err(MALFORMED));
                }
            }
        }
        None
    }
}

impl<'a> Fields<'a> {
    /// `None`: malformed. Within it `None`: it has no length. No component of Weft sends
    /// groups.
    fn field(&mut self) -> Option<Option<(u64, &'a [u8])>> {
        let key = self.varint()?;
        match key & 7 {
            0 => self.varint().map(|_| None),
            1 => self.take(8).map(|_| None),
            2 => {
                let length = usize::try_from(self.varint()?).ok()?;
                self.take(length).map(|content| Some((key >> 3, content)))
            }
            5 => self.take(4).map(|_| None),
            _ => None,
        }
    }

    fn varint(&mut self) -> Option<u64> {
        let mut value = 0_u64;
        for shift in (0..70).step_by(7) {
            let (byte, rest) = self.0.split_first()?;
            self.0 = rest;
            value |= u64::from(byte & 0x7f).checked_shl(shift).unwrap_or(0);
            if byte & 0x80 == 0 {
                return Some(value);
            }
        }
        None
    }

    fn take(&mut self, length: usize) -> Option<&'a [u8]> {
        let (taken, rest) = self.0.split_at_checked(length)?;
        self.0 = rest;
        Some(taken)
    }
}

/// What a proxy sends on its stream, for a server that answers without the generated one: the
/// messages in this body, each of so many bytes at most, decoded as the generated
/// server does.
#[must_use]
pub fn from_proxy(body: Body, most: usize) -> Streaming<v1::FromProxy> {
    Streaming::new_request(BoundedDecoder::default(), body, None, Some(most))
}

#[cfg(test)]
mod tests {
    use prost::Message as _;

    use super::*;
    use crate::v1::from_proxy::Message as Content;

    fn encoded(content: Content) -> Vec<u8> {
        let message = Some(content);
        v1::FromProxy { message }.encode_to_vec()
    }

    fn report(edges: Vec<v1::Edge>) -> Vec<u8> {
        encoded(Content::Report(v1::Report {
            edges,
            ..v1::Report::default()
        }))
    }

    fn early(rows: usize) -> Vec<u8> {
        let row = v1::EarlySums {
            port: u32::from(u16::MAX),
            group: v1::early_sums::Group::Copies.into(),
            calls: u64::MAX,
            failed: u64::MAX,
            cancelled: u64::MAX,
            latency: vec![u64::MAX; policy::latency::BUCKETS],
            waiting: vec![u32::MAX; policy::latency::BUCKETS],
        };
        encoded(Content::EarlyReport(v1::EarlyReport {
            epoch: u64::MAX,
            number: u64::MAX,
            sums: vec![row; rows],
        }))
    }

    fn edge(reasons: usize) -> v1::Edge {
        let reason = v1::ReasonCalls {
            reason: "not-allowed".to_owned(),
            calls: u64::MAX,
        };
        v1::Edge {
            pod: "shop/api-1".to_owned(),
            latency: vec![u32::MAX; 40],
            success: 7,
            reasons: vec![reason; reasons],
            rules: vec!["shop/read".to_owned(); 8],
            routes: vec![v1::EdgeRoute::default(); 16],
            ..v1::Edge::default()
        }
    }

    #[test]
    fn messages_of_proxies_are_decoded() {
        let name = |at: usize| format!("endpoints/shop-{}/orders-{at}/8080", at % 100);
        let hello = v1::Hello {
            held: (0..20_000)
                .map(|at| (name(at), "0123456789abcdef".to_owned()))
                .collect(),
            destinations: (0..4_096).map(name).collect(),
            ..v1::Hello::default()
        };
        let nacks = (0..1_000).map(|at| v1::Nack {
            name: name(at),
            reason: "too long".to_owned(),
            ..v1::Nack::default()
        });
        for honest in [
            encoded(Content::Hello(hello)),
            encoded(Content::Ack(v1::Ack {
                batch: u64::MAX,
                nacks: nacks.collect(),
            })),
            report(vec![edge(32); 1_024]),
            early(32),
            Vec::new(),
        ] {
            assert_eq!(v1::FromProxy::check(&honest), Ok(()));
            v1::FromProxy::decode(honest.as_slice()).unwrap();
        }
    }

    #[test]
    fn message_expanding_beyond_bounds_is_not_decoded() {
        let empty = |many: usize| vec![v1::Nack::default(); many];
        let ack = |nacks| encoded(Content::Ack(v1::Ack { batch: 1, nacks }));
        let mut cut = ack(empty(PARTS));
        cut.truncate(cut.len() - 1);
        for (hostile, why) in [
            (report(vec![v1::Edge::default(); PARTS + 1]), TOO_MANY),
            (ack(empty(PARTS + 1)), TOO_MANY),
            (report(vec![edge(PARTS_OF_EDGES)]), TOO_MANY),
            (report(vec![edge(300); 500]), TOO_MANY),
            // The same field again is more of the same message.
            (report(vec![v1::Edge::default(); PARTS]).repeat(2), TOO_MANY),
            (ack(empty(PARTS)).repeat(63), TOO_MANY),
            (early(32).repeat(3), TOO_MANY),
            (cut, MALFORMED),
            // A group, a length beyond the end, a number that goes on.
            (vec![0x0b, 0x0c], MALFORMED),
            (vec![0x22, 0x05, 0x1a], MALFORMED),
            (vec![0xff; 11], MALFORMED),
        ] {
            assert_eq!(
                v1::FromProxy::check(&hostile),
                Err(why),
                "{} bytes",
                hostile.len()
            );
        }
        assert_eq!(v1::FromProxy::check(&ack(empty(PARTS))), Ok(()));
    }

    #[test]
    fn pods_that_ended_are_counted_before_they_are_decoded() {
        let ended_of = |pods: usize, owners: usize| {
            let owner = v1::PodOwner {
                kind: "ReplicaSet".to_owned(),
                name: "api-5d9".to_owned(),
            };
            let pod = v1::EndedPod {
                namespace: "shop".to_owned(),
                pod: "api-5d9-x".to_owned(),
                uid: "uid".to_owned(),
                node: "n1".to_owned(),
                owners: vec![owner; owners],
                ago: 1,
            };
            let news = v1::Reports {
                ended: vec![pod; pods],
                ..v1::Reports::default()
            };
            news.encode_to_vec()
        };
        let honest = ended_of(5_000, 4);
        assert_eq!(v1::Reports::check(&honest), Ok(()));
        v1::Reports::decode(honest.as_slice()).unwrap();
        let empty = v1::Reports {
            ended: vec![v1::EndedPod::default(); PARTS_OF_ENDED + 1],
            ..v1::Reports::default()
        };
        let cut = &honest[..honest.len() - 1];
        for (hostile, why) in [
            (empty.encode_to_vec().as_slice(), TOO_MANY),
            (ended_of(1, PARTS_OF_ENDED).as_slice(), TOO_MANY),
            (ended_of(5_000, 4).repeat(2).as_slice(), TOO_MANY),
            (cut, MALFORMED),
        ] {
            assert_eq!(v1::Reports::check(hostile), Err(why));
        }
    }
}
