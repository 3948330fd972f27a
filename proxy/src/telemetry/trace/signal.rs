//! What goes to a collector: spans, and lines of the access log.

use std::borrow::Cow;

use policy::trace::Collector;
use prost::Message as _;

use crate::telemetry::trace::otlp;
use crate::telemetry::trace::span::SCHEMA;

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
        let attributes = attributes.map(|(name, value)| otlp::KeyValue::text(name, value));
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

#[cfg(test)]
mod tests {
    use super::*;

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
}
