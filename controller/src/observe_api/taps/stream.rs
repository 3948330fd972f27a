//! A following tap: streams one line for each request.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use crds::observe::{Direction, Header, TapLine, TapMetadata, TapRequest};
use futures::stream;
use k8s_openapi::jiff::Timestamp;
use model::PodId;
use parking_lot::RwLock;
use tokio::time::{Instant, Interval, interval, sleep_until};
use wire::v1;
use wire::v1::answered::What;

use crate::aggregated::server::ApiResponse;
use crate::graph::protocol;
use crate::inventory::Inventory;
use crate::observe::live_queries::Answers;
use crate::observe_api::stream::{LIFE, StreamPermits, line, line_stream};

/// The time for proxies: they end by themselves should no message end them.
pub(super) const LASTS: Duration = Duration::from_secs(60);
/// Between two looks at how many there were.
const COUNT_EVERY: Duration = Duration::from_secs(1);

/// The pods whose proxies were queried, by uid, and how many there are.
type Watched = (BTreeMap<Arc<str>, PodId>, usize);

/// What one reader receives, and until when.
struct TapStream {
    answers: Answers,
    pods: BTreeMap<Arc<str>, PodId>,
    proxies: u32,
    inventory: Arc<RwLock<Inventory>>,
    summaries: BTreeMap<Arc<str>, v1::TapSummary>,
    /// Whose proxies take part now. What those counted that went stays counted.
    here: BTreeSet<Arc<str>>,
    /// Whose proxies refused to take part.
    refused: BTreeSet<Arc<str>>,
    /// The number of them that was sent last.
    last_sent: Option<TapMetadata>,
    counts: Interval,
    until: Instant,
    ended: bool,
    _permits: StreamPermits,
}

/// The stream as a response.
pub(super) fn answer(
    answers: Answers,
    (pods, proxies): Watched,
    inventory: Arc<RwLock<Inventory>>,
    permits: StreamPermits,
) -> ApiResponse {
    let reader = TapStream {
        answers,
        pods,
        proxies: u32::try_from(proxies).unwrap_or(u32::MAX),
        inventory,
        summaries: BTreeMap::new(),
        here: BTreeSet::new(),
        refused: BTreeSet::new(),
        last_sent: None,
        counts: interval(COUNT_EVERY),
        until: Instant::now() + LIFE,
        ended: false,
        _permits: permits,
    };
    line_stream(stream::unfold(reader, |mut reader| async move {
        let message = reader.next().await?;
        Some((line(&message), reader))
    }))
}

impl TapStream {
    /// The next line; `None` after the last. The first comes at once.
    async fn next(&mut self) -> Option<TapLine> {
        if self.ended {
            return None;
        }
        loop {
            tokio::select! {
                _ = self.counts.tick() => {
                    if let Some(line) = self.counted() {
                        return Some(line);
                    }
                }
                answer = self.answers.next() => {
                    let Some(answer) = answer else {
                        return Some(self.last());
                    };
                    match answer.what {
                        Some(What::Record(record)) => {
                            let request = Some(self.request(&answer.uid, record));
                            return Some(TapLine { request, ..TapLine::default() });
                        }
                        Some(What::Summary(summary)) => {
                            self.here.insert(Arc::clone(&answer.uid));
                            self.refused.remove(&answer.uid);
                            self.summaries.insert(answer.uid, summary);
                        }
                        Some(What::Config(_) | What::Trial(_) | What::Example(_)) => {}
                        // It has no room for a tap, or is older than that.
                        Some(What::Refused(_)) => {
                            self.here.remove(&answer.uid);
                            self.refused.insert(answer.uid);
                        }
                        // It went away.
                        None => {
                            self.here.remove(&answer.uid);
                            self.refused.remove(&answer.uid);
                        }
                    }
                }
                () = sleep_until(self.until) => return Some(self.last()),
            }
        }
    }

    fn metadata(&self) -> TapMetadata {
        // A proxy may report any number.
        let sum = |count: fn(&v1::TapSummary) -> u64| {
            let counts = self.summaries.values().map(count);
            counts.fold(0, u64::saturating_add)
        };
        let (shown, lost) = (sum(|summary| summary.shown), self.answers.dropped());
        let number = |pods: &BTreeSet<Arc<str>>| u32::try_from(pods.len()).unwrap_or(u32::MAX);
        TapMetadata {
            proxies: self.proxies,
            taking_part: number(&self.here),
            refused: number(&self.refused),
            matched: sum(|summary| summary.matched),
            // Proxies do not know what found no room here.
            shown: shown.saturating_sub(lost),
            dropped: sum(|summary| summary.dropped).saturating_add(lost),
            last: false,
        }
    }

    fn counted(&mut self) -> Option<TapLine> {
        let metadata = Some(self.metadata()).filter(|now| self.last_sent.as_ref() != Some(now))?;
        self.last_sent = Some(metadata.clone());
        Some(TapLine {
            metadata: Some(metadata),
            ..TapLine::default()
        })
    }

    fn last(&mut self) -> TapLine {
        self.ended = true;
        let metadata = TapMetadata {
            last: true,
            ..self.metadata()
        };
        TapLine {
            metadata: Some(metadata),
            ..TapLine::default()
        }
    }

    fn request(&self, uid: &str, record: v1::TapRecord) -> TapRequest {
        let edge = record.edge.unwrap_or_default();
        let inbound = edge.side() == v1::Side::Server;
        let number = |number: u32| u16::try_from(number).unwrap_or_default();
        let headers = record.headers.into_iter();
        TapRequest {
            time: time(record.at),
            direction: if inbound {
                Direction::Inbound
            } else {
                Direction::Outbound
            },
            pod: self
                .pods
                .get(uid)
                .map(ToString::to_string)
                .unwrap_or_default(),
            peer: self.peer(&edge),
            port: number(edge.port),
            mtls: edge.security() == v1::Security::Mtls,
            unsent: edge.security() == v1::Security::NotTold,
            protocol: protocol(edge.protocol()).as_str().to_owned(),
            identity: edge.identity,
            service: edge.service,
            backend: edge.backend,
            method: record.method,
            host: record.host,
            path: record.path,
            route: record.route,
            status: number(record.status),
            grpc_status: record.grpc_status.map(number),
            reason: record.reason,
            ms: record.latency as f64 / 1e3,
            bytes: record.bytes,
            trace: record.trace,
            headers: headers
                .map(|header| Header {
                    name: header.name,
                    value: String::from_utf8_lossy(&header.value).into_owned(),
                })
                .collect(),
        }
    }

    /// The other end: a pod, or what is outside the mesh.
    fn peer(&self, edge: &v1::Edge) -> String {
        if !edge.pod.is_empty() {
            return edge.pod.clone();
        }
        let inventory = self.inventory.read();
        let pod = inventory.pod_by_uid(&edge.caller);
        pod.map_or_else(|| edge.remote.clone(), ToString::to_string)
    }
}

/// RFC 3339, always with three digits after the second: times of a tap stand below each other.
fn time(milliseconds: u64) -> String {
    let at = i64::try_from(milliseconds).ok();
    let at = at.and_then(|at| Timestamp::from_millisecond(at).ok());
    at.map(|at| format!("{at:.3}")).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tap_times_always_have_three_decimal_digits() {
        for (milliseconds, expected) in [
            (1_793_610_000_000, "2026-11-02T09:00:00.000Z"),
            (1_793_610_000_160, "2026-11-02T09:00:00.160Z"),
            (1_793_610_000_161, "2026-11-02T09:00:00.161Z"),
        ] {
            assert_eq!(time(milliseconds), expected);
        }
        assert_eq!(time(u64::MAX), "", "no time at all");
    }
}
