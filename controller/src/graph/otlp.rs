//! Encodes the graph's metrics as an OTLP message.
//!
//! Claims: observe-86

use std::time::{Duration, SystemTime};

use opentelemetry_proto::tonic::collector::metrics::v1::ExportMetricsServiceRequest;
use opentelemetry_proto::tonic::common::v1::any_value::Value;
use opentelemetry_proto::tonic::common::v1::{AnyValue, InstrumentationScope, KeyValue};
use opentelemetry_proto::tonic::metrics::v1::{
    AggregationTemporality, Histogram, HistogramDataPoint, Metric, NumberDataPoint,
    ResourceMetrics, ScopeMetrics, Sum, metric, number_data_point,
};
use opentelemetry_proto::tonic::resource::v1::Resource;
use policy::latency::{BOUNDS, BUCKETS};

use crate::metrics::service_graph::{Calls, Pair, PairCalls};
use crate::observe::reports::INTERVAL;

/// Numbers add up from the start that each of them names.
const CUMULATIVE: i32 = AggregationTemporality::Cumulative as i32;

/// What these pairs have counted until `now`. `resource` names whose numbers they are.
pub(super) fn message(
    resource: &[(&'static str, String)],
    pairs: &[PairCalls],
    now: SystemTime,
) -> ExportMetricsServiceRequest {
    let attributes = resource.iter();
    let attributes = attributes.map(|(key, value)| text(key, value));
    let resource = Resource {
        attributes: attributes.collect(),
        ..Resource::default()
    };
    let scope = InstrumentationScope {
        name: "weft-controller".to_owned(),
        version: env!("CARGO_PKG_VERSION").to_owned(),
        ..InstrumentationScope::default()
    };
    let now = now.duration_since(SystemTime::UNIX_EPOCH);
    let now = nanoseconds(now.unwrap_or_default());
    let requests = counter("traces_service_graph_request_total", pairs, now, |calls| {
        calls.requests
    });
    let failed = "traces_service_graph_request_failed_total";
    let failed = counter(failed, pairs, now, |calls| calls.failed);
    let metrics = vec![requests, failed, times(pairs, now)];
    ExportMetricsServiceRequest {
        resource_metrics: vec![ResourceMetrics {
            resource: Some(resource),
            scope_metrics: vec![ScopeMetrics {
                scope: Some(scope),
                metrics,
                ..ScopeMetrics::default()
            }],
            ..ResourceMetrics::default()
        }],
    }
}

fn counter(name: &str, pairs: &[PairCalls], now: u64, count: fn(&Calls) -> u64) -> Metric {
    let points = pairs.iter().map(|one| {
        let number = i64::try_from(count(&one.calls)).unwrap_or(i64::MAX);
        NumberDataPoint {
            attributes: labels(&one.pair),
            start_time_unix_nano: began(one),
            time_unix_nano: now,
            value: Some(number_data_point::Value::AsInt(number)),
            ..NumberDataPoint::default()
        }
    });
    Metric {
        name: name.to_owned(),
        data: Some(metric::Data::Sum(Sum {
            data_points: points.collect(),
            aggregation_temporality: CUMULATIVE,
            is_monotonic: true,
        })),
        ..Metric::default()
    }
}

fn times(pairs: &[PairCalls], now: u64) -> Metric {
    let points = pairs.iter().map(|one| {
        let took = &one.calls.took;
        let mut counts = took.counts().to_vec();
        counts.resize(BUCKETS, 0);
        HistogramDataPoint {
            attributes: labels(&one.pair),
            start_time_unix_nano: began(one),
            time_unix_nano: now,
            count: took.total(),
            sum: Some(one.calls.seconds()),
            bucket_counts: counts,
            explicit_bounds: BOUNDS.to_vec(),
            ..HistogramDataPoint::default()
        }
    });
    Metric {
        name: "traces_service_graph_request_server_seconds".to_owned(),
        unit: "s".to_owned(),
        data: Some(metric::Data::Histogram(Histogram {
            data_points: points.collect(),
            aggregation_temporality: CUMULATIVE,
        })),
        ..Metric::default()
    }
}

fn labels(pair: &Pair) -> Vec<KeyValue> {
    vec![text("client", &pair.client), text("server", &pair.server)]
}

fn text(key: &str, text: &str) -> KeyValue {
    KeyValue {
        key: key.to_owned(),
        value: Some(AnyValue {
            value: Some(Value::StringValue(text.to_owned())),
        }),
        ..KeyValue::default()
    }
}

fn began(one: &PairCalls) -> u64 {
    nanoseconds(Duration::from_secs(one.since.saturating_mul(INTERVAL)))
}

fn nanoseconds(since_1970: Duration) -> u64 {
    u64::try_from(since_1970.as_nanos()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::metrics::service_graph::{ReportingWorkload, ServiceGraphMetrics};

    fn texts(attributes: &[KeyValue]) -> Vec<(&str, &str)> {
        let each = attributes.iter().map(|one| {
            let value = one.value.as_ref().unwrap().value.as_ref().unwrap();
            let Value::StringValue(text) = value else {
                panic!("{one:?}")
            };
            (one.key.as_str(), text.as_str())
        });
        each.collect()
    }

    #[test]
    fn otlp_message_carries_counts_start_time_and_origin() {
        let metrics = ServiceGraphMetrics::default();
        let mut calls = Calls {
            requests: 2,
            ..Calls::default()
        };
        calls.took.observe(0.001);
        calls.took.observe(60.0);
        let pair = Pair {
            client: "shop/Deployment/web".into(),
            server: "shop/Deployment/cart".into(),
        };
        let by = ReportingWorkload {
            namespace: "shop".into(),
            node: "shop/Deployment/web".into(),
        };
        metrics.add(pair.clone(), &by, &calls, 200);
        metrics.add(pair, &by, &calls, 201);
        let resource = [("service.name", "weft-controller".to_owned())];
        let now = SystemTime::UNIX_EPOCH + Duration::from_secs(1_010);
        let exported = message(&resource, &metrics.all(), now);

        let [all] = &exported.resource_metrics[..] else {
            panic!("{exported:#?}")
        };
        let resource = &all.resource.as_ref().unwrap().attributes;
        assert_eq!(texts(resource), [("service.name", "weft-controller")]);
        let metrics = &all.scope_metrics[0].metrics;
        let labels = [
            ("client", "shop/Deployment/web"),
            ("server", "shop/Deployment/cart"),
        ];
        let (start, end) = (1_000_000_000_000, 1_010_000_000_000);
        for (metric, name, number) in [
            (&metrics[0], "traces_service_graph_request_total", 4),
            // Zero is a number too.
            (&metrics[1], "traces_service_graph_request_failed_total", 0),
        ] {
            assert_eq!(metric.name, name);
            let Some(metric::Data::Sum(sum)) = &metric.data else {
                panic!("{metric:#?}")
            };
            assert_eq!(sum.aggregation_temporality, CUMULATIVE);
            assert!(sum.is_monotonic);
            let point = &sum.data_points[0];
            let expected = Some(number_data_point::Value::AsInt(number));
            assert_eq!(point.value, expected, "{name}");
            assert_eq!(point.start_time_unix_nano, start);
            assert_eq!(point.time_unix_nano, end);
            assert_eq!(texts(&point.attributes), labels);
        }
        let times = &metrics[2];
        assert_eq!(times.name, "traces_service_graph_request_server_seconds");
        assert_eq!(times.unit, "s");
        let Some(metric::Data::Histogram(times)) = &times.data else {
            panic!("{times:#?}")
        };
        assert_eq!(times.aggregation_temporality, CUMULATIVE);
        let point = &times.data_points[0];
        assert_eq!(point.explicit_bounds, BOUNDS);
        assert_eq!(point.bucket_counts.len(), BUCKETS);
        assert_eq!((point.bucket_counts[2], point.bucket_counts[24]), (2, 2));
        let counted: u64 = point.bucket_counts.iter().sum();
        assert_eq!((point.count, counted), (4, 4));
        let sum = point.sum.unwrap();
        assert!((sum - 2.0 * (0.00105 + 30.0)).abs() < 1e-9, "{sum}");
        assert_eq!(point.start_time_unix_nano, start);
        assert_eq!(texts(&point.attributes), labels);
    }
}
