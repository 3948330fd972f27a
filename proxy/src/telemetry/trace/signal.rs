//! The two signals that a collector gets: spans, and lines of the access log.
//!
//! Claims: observe-101, observe-95

use std::borrow::Cow;
use std::time::SystemTime;

use policy::trace::Collector;
use prost::Message as _;

use crate::telemetry::access_log::Line;
use crate::telemetry::trace::otlp::{self, KeyValue};
use crate::telemetry::trace::span::SCHEMA;

/// Severities, as OpenTelemetry numbers them.
const INFO: i32 = 9;
const ERROR: i32 = 17;

/// See the module header.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Signal {
    Spans,
    Logs,
}

impl Signal {
    /// As metrics name it.
    pub(crate) const fn name(self) -> &'static str {
        match self {
            Self::Spans => "spans",
            Self::Logs => "logs",
        }
    }

    /// Where it goes over gRPC.
    pub(super) const fn grpc_path(self) -> &'static str {
        match self {
            Self::Spans => "/opentelemetry.proto.collector.trace.v1.TraceService/Export",
            Self::Logs => "/opentelemetry.proto.collector.logs.v1.LogsService/Export",
        }
    }

    /// Where it goes over HTTP.
    pub(super) fn http_path(self, collector: &Collector) -> Cow<'_, str> {
        match self {
            Self::Spans => collector.path().into(),
            Self::Logs => collector.path_of("logs"),
        }
    }

    /// A message with these of it, each encoded already.
    pub(super) fn message(self, resource: &[(String, String)], all: Vec<Vec<u8>>) -> Vec<u8> {
        let attributes = resource.iter();
        let attributes = attributes.map(|(name, value)| KeyValue::text(name, value));
        let resource = Some(otlp::Resource {
            attributes: attributes.collect(),
        });
        let scope = Some(otlp::Scope {
            name: "weft-proxy".to_owned(),
            version: env!("CARGO_PKG_VERSION").to_owned(),
        });
        let schema_url = SCHEMA.to_owned();
        match self {
            Self::Spans => otlp::Request {
                resource_spans: vec![otlp::ResourceSpans {
                    resource,
                    scope_spans: vec![otlp::ScopeSpans {
                        scope,
                        spans: all,
                        schema_url: schema_url.clone(),
                    }],
                    schema_url,
                }],
            }
            .encode_to_vec(),
            Self::Logs => otlp::LogsRequest {
                resource_logs: vec![otlp::ResourceLogs {
                    resource,
                    scope_logs: vec![otlp::ScopeLogs {
                        scope,
                        log_records: all,
                        schema_url: schema_url.clone(),
                    }],
                    schema_url,
                }],
            }
            .encode_to_vec(),
        }
    }
}

/// A line of the access log as the collector gets it: one request, which `failed` or did not.
pub(crate) fn log_record(line: &Line<'_>, failed: bool, now: SystemTime) -> Vec<u8> {
    let now = now.duration_since(SystemTime::UNIX_EPOCH);
    let now = u64::try_from(now.unwrap_or_default().as_nanos()).unwrap_or(u64::MAX);
    let body = format!("{} {} {}", line.method, line.path, line.status);
    otlp::LogRecord {
        time: now,
        severity: if failed { ERROR } else { INFO },
        body: Some(otlp::AnyValue::text(body)),
        attributes: attributes(line),
        trace_id: id::<16>(line.trace),
        span_id: id::<8>(line.span),
        observed: now,
        event_name: "weft.access".to_owned(),
    }
    .encode_to_vec()
}

fn attributes(line: &Line<'_>) -> Vec<KeyValue> {
    let rule = line.rule.map(ToString::to_string).unwrap_or_default();
    let texts = [
        ("http.request.method", line.method),
        ("server.address", line.host),
        ("url.path", line.path),
        ("http.route", line.route),
        ("weft.direction", line.direction),
        ("weft.reason", line.reason),
        ("weft.service", line.service),
        ("weft.backend", line.backend),
        ("weft.peer", line.peer),
        ("weft.rule", &rule),
        ("weft.fault", line.fault.unwrap_or_default()),
    ];
    let texts = texts.into_iter().filter(|(_, text)| !text.is_empty());
    let texts = texts.map(|(key, text)| KeyValue::text(key, text));
    let latency = i64::try_from(line.latency.as_micros()).unwrap_or(i64::MAX);
    let bytes = i64::try_from(line.bytes).unwrap_or(i64::MAX);
    let numbers = [
        ("http.response.status_code", i64::from(line.status)),
        ("http.response.body.size", bytes),
        ("weft.latency_us", latency),
    ];
    let numbers = numbers.map(|(key, number)| KeyValue::number(key, number));
    texts.chain(numbers).collect()
}

/// The bytes of an id in hexadecimal; none where there is none.
fn id<const BYTES: usize>(text: Option<&str>) -> Vec<u8> {
    let number = text.and_then(|text| u128::from_str_radix(text, 16).ok());
    let bytes = number.map(|number| number.to_be_bytes()[16 - BYTES..].to_vec());
    bytes.unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::telemetry::trace::otlp::Value;

    #[test]
    fn logs_go_beside_the_spans() {
        for (collector, spans, logs) in [
            ("http://c:4318", "/v1/traces", "/v1/logs"),
            (
                "http://c/otlp/v1/traces",
                "/otlp/v1/traces",
                "/otlp/v1/logs",
            ),
            ("http://c/all", "/all", "/all"),
        ] {
            let collector: Collector = collector.parse().unwrap();
            assert_eq!(Signal::Spans.http_path(&collector), spans);
            assert_eq!(Signal::Logs.http_path(&collector), logs);
        }
    }

    #[test]
    fn a_record_says_what_a_line_says() {
        let line = Line {
            direction: "inbound",
            method: "GET",
            host: "cart.shop",
            path: "/items",
            status: 403,
            reason: "not-allowed",
            service: "",
            backend: "",
            peer: "shop/web",
            rule: None,
            route: "cart/items",
            trace: Some("0af7651916cd43dd8448eb211c80319c"),
            span: Some("b7ad6b7169203331"),
            fault: Some("shop/slow"),
            latency: Duration::from_micros(1500),
            bytes: 3,
        };
        let encoded = log_record(&line, true, SystemTime::UNIX_EPOCH + Duration::from_secs(1));
        let record = otlp::LogRecord::decode(encoded.as_slice()).unwrap();
        assert_eq!((record.time, record.severity), (1_000_000_000, ERROR));
        assert_eq!((record.trace_id.len(), record.span_id.len()), (16, 8));
        assert_eq!(record.span_id[..2], [0xb7, 0xad]);
        let attributes = record.attributes.iter();
        let attributes: Vec<(&str, String)> = attributes
            .map(|one| {
                let value = one.value.as_ref().unwrap().value.as_ref().unwrap();
                let value = match value {
                    Value::Text(text) => text.clone(),
                    Value::Number(number) => number.to_string(),
                };
                (one.key.as_str(), value)
            })
            .collect();
        let expected = [
            ("http.request.method", "GET"),
            ("server.address", "cart.shop"),
            ("url.path", "/items"),
            ("http.route", "cart/items"),
            ("weft.direction", "inbound"),
            ("weft.reason", "not-allowed"),
            ("weft.peer", "shop/web"),
            ("weft.fault", "shop/slow"),
            ("http.response.status_code", "403"),
            ("http.response.body.size", "3"),
            ("weft.latency_us", "1500"),
        ];
        let expected = expected.map(|(key, value)| (key, value.to_owned()));
        assert_eq!(attributes, expected);
        let line = Line {
            trace: None,
            span: None,
            ..line
        };
        let encoded = log_record(&line, false, SystemTime::now());
        let record = otlp::LogRecord::decode(encoded.as_slice()).unwrap();
        assert_eq!((record.severity, record.trace_id.len()), (INFO, 0));
    }
}
