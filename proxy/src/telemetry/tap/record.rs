//! The record of one request that taps receive.

use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use http::{HeaderMap, HeaderName, Method};
use policy::protocol::Protocol;
use wire::v1;

use crate::http::head::ReportedHead;
use crate::telemetry::call_ends::CallEnds;
use crate::telemetry::report::ends;
use crate::telemetry::tap::{Tap, Taps};
use crate::telemetry::trace::{self, Trace};

/// Bytes of a path that are reported.
const PATH: usize = 1024;
/// Bytes of a method, a host, or the value of a header.
const TEXT: usize = 256;
/// Values of headers in one record, which has to fit into a message of 32 KiB.
const MAX_VALUES: usize = 32;

/// What is known of a request when it comes, for those taps that may want it.
#[derive(Debug)]
pub(crate) struct Tapped {
    taps: Vec<Arc<Tap>>,
    head: Head,
    /// Of each tap, in their order.
    headers: Vec<Vec<v1::Header>>,
}

/// What all taps get of it.
#[derive(Clone, Debug, Default)]
struct Head {
    /// When it came, milliseconds since 1970.
    at: u64,
    method: String,
    host: String,
    path: String,
    /// Empty where it belongs to none.
    trace: String,
}

/// How it ended.
#[derive(Clone, Copy, Debug)]
pub(crate) struct TapEnding<'a> {
    /// The port that was called.
    pub(crate) port: u16,
    /// The route of the own workload that describes it.
    pub(crate) route: Option<&'a str>,
    pub(crate) status: u16,
    pub(crate) grpc: Option<u16>,
    pub(crate) reason: &'static str,
    /// To the head of the answer.
    pub(crate) latency: Duration,
    /// Of the answer's body.
    pub(crate) bytes: u64,
}

impl Tapped {
    /// What is written down of a request that comes, where a tap may want it; `trace` is there
    /// where this proxy changes its trace headers.
    #[cold]
    pub(crate) fn note(
        taps: &Taps,
        call_ends: &CallEnds,
        reported_head: ReportedHead<'_>,
        trace: Option<&Trace>,
    ) -> Option<Box<Self>> {
        let open = taps.open.load();
        let direction = call_ends.direction();
        let fits = |tap: &&Arc<Tap>| {
            // The caller is known from the begin on; the callee is not.
            let ends_are_known = matches!(call_ends, CallEnds::Inbound { .. });
            tap.filter.wants_head(direction, reported_head)
                && (!ends_are_known || tap.filter.wants_end(call_ends))
        };
        let taps: Vec<Arc<Tap>> = open.iter().filter(fits).cloned().collect();
        (!taps.is_empty()).then(|| Box::new(Self::new(taps, reported_head, trace)))
    }

    fn new(taps: Vec<Arc<Tap>>, reported_head: ReportedHead<'_>, trace: Option<&Trace>) -> Self {
        let headers = taps.iter();
        let headers = headers.map(|tap| {
            let map = reported_head.headers;
            map.map_or_else(Vec::new, |map| selected(map, &tap.filter.headers))
        });
        let at = SystemTime::now().duration_since(UNIX_EPOCH);
        let head = Head {
            at: number(at.unwrap_or_default().as_millis()),
            method: cut(reported_head.method.map_or("", Method::as_str), TEXT),
            host: cut(reported_head.host, TEXT),
            path: cut(reported_head.path, PATH),
            trace: match trace {
                Some(trace) => trace.id(),
                None => reported_head
                    .headers
                    .and_then(trace::id)
                    .unwrap_or_default(),
            },
        };
        Self {
            headers: headers.collect(),
            head,
            taps,
        }
    }

    /// Shows it to the taps that want how it ended. Most often there is one, so the last of
    /// them is given what was written down, and only others a copy.
    pub(crate) fn ended(self, call_ends: &CallEnds, protocol: Protocol, ending: &TapEnding<'_>) {
        let how = (ending.status, ending.latency, ending.route);
        let Self {
            taps,
            mut head,
            headers,
        } = self;
        let all = taps.into_iter().zip(headers);
        let mut wanting = all
            .filter(|(tap, _)| tap.filter.wants(call_ends, how))
            .peekable();
        while let Some((tap, headers)) = wanting.next() {
            let is_last = wanting.peek().is_none();
            tap.show(|| {
                let head = if is_last {
                    std::mem::take(&mut head)
                } else {
                    head.clone()
                };
                v1::TapRecord {
                    edge: Some(v1::Edge {
                        port: u32::from(ending.port),
                        ..ends(call_ends, protocol)
                    }),
                    headers,
                    ..head.record(ending)
                }
            });
        }
    }
}

impl Head {
    fn record(self, ending: &TapEnding<'_>) -> v1::TapRecord {
        v1::TapRecord {
            at: self.at,
            method: self.method,
            host: self.host,
            path: self.path,
            status: u32::from(ending.status),
            grpc_status: ending.grpc.map(u32::from),
            reason: ending.reason.to_owned(),
            latency: number(ending.latency.as_micros()),
            bytes: ending.bytes,
            trace: self.trace,
            route: ending.route.unwrap_or_default().to_owned(),
            ..v1::TapRecord::default()
        }
    }
}

fn number(number: u128) -> u64 {
    u64::try_from(number).unwrap_or(u64::MAX)
}

/// The headers of these names, each value for itself.
fn selected(map: &HeaderMap, names: &[HeaderName]) -> Vec<v1::Header> {
    let values = names
        .iter()
        .flat_map(|name| map.get_all(name).iter().map(move |value| (name, value)));
    let headers = values.map(|(name, value)| v1::Header {
        name: name.as_str().to_owned(),
        value: value.as_bytes().iter().take(TEXT).copied().collect(),
    });
    headers.take(MAX_VALUES).collect()
}

/// At most so many bytes, on a character boundary.
fn cut(text: &str, most: usize) -> String {
    let mut end = text.len().min(most);
    while !text.is_char_boundary(end) {
        end -= 1;
    }
    text[..end].to_owned()
}
