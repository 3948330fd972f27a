//! What is measured, and what Weft must reach.

/// How a figure of Weft is judged.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Must {
    /// No worse than `must / envoy` times what Envoy needs in the same run.
    NoMore { must: f64, aim: f64, envoy: f64 },
    /// No less than `must / envoy` times what Envoy reaches in the same run.
    NoLess { must: f64, aim: f64, envoy: f64 },
    /// As it is, whatever Envoy needs.
    AtMost { must: f64, aim: f64 },
    /// Shown without a claim.
    Shown,
}

/// One row of the tables.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Measure {
    pub(crate) id: &'static str,
    pub(crate) title: &'static str,
    pub(crate) unit: &'static str,
    pub(crate) decimals: usize,
    pub(crate) must: Must,
}

const fn row(
    id: &'static str,
    title: &'static str,
    unit: &'static str,
    decimals: usize,
    must: Must,
) -> Measure {
    Measure {
        id,
        title,
        unit,
        decimals,
        must,
    }
}

const fn less(must: f64, aim: f64, envoy: f64) -> Must {
    Must::NoMore { must, aim, envoy }
}

const fn more(must: f64, aim: f64, envoy: f64) -> Must {
    Must::NoLess { must, aim, envoy }
}

/// Sections and rows in the order of the report. The numbers behind `less` and
/// `more` are must, aim and Envoy's figure on the machine they were set on.
pub(crate) const SECTIONS: &[(&str, &[Measure])] = &[
    (
        "CPU per request, both proxies together (direct: the server)",
        &[
            row(
                "cpu-c1",
                "HTTP/1.1, 1 connection, small answer",
                "µs",
                1,
                less(110.0, 80.0, 205.0),
            ),
            row(
                "cpu-c32",
                "HTTP/1.1, 32 connections, small answer",
                "µs",
                1,
                less(32.0, 24.0, 52.0),
            ),
            row(
                "cpu-c128",
                "HTTP/1.1, 128 connections, small answer",
                "µs",
                1,
                less(36.0, 27.0, 56.0),
            ),
            row(
                "cpu-10k-c1",
                "HTTP/1.1, 1 connection, 10 KB",
                "µs",
                1,
                Must::Shown,
            ),
            row(
                "cpu-10k",
                "HTTP/1.1, 32 connections, 10 KB",
                "µs",
                1,
                less(48.0, 40.0, 80.0),
            ),
            row(
                "cpu-10k-c128",
                "HTTP/1.1, 128 connections, 10 KB",
                "µs",
                1,
                Must::Shown,
            ),
            row(
                "cpu-h2",
                "HTTP/2 without TLS, 32 streams",
                "µs",
                1,
                less(28.0, 20.0, 40.0),
            ),
            row(
                "cpu-grpc",
                "gRPC unary, empty messages, 32 streams",
                "µs",
                1,
                Must::Shown,
            ),
            row(
                "cpu-h2-100",
                "HTTP/2, 100 B there and back, 32 streams",
                "µs",
                1,
                Must::Shown,
            ),
            row(
                "cpu-h2-10k",
                "HTTP/2, 10 KB there and back, 32 streams",
                "µs",
                1,
                Must::Shown,
            ),
            row(
                "cpu-grpc-100",
                "gRPC unary, 100 B there and back, 32 streams",
                "µs",
                1,
                Must::Shown,
            ),
            row(
                "cpu-grpc-10k",
                "gRPC unary, 10 KB there and back, 32 streams",
                "µs",
                1,
                Must::Shown,
            ),
            row(
                "cpu-both",
                "a message of 100 B in a gRPC stream both ways, 32 streams",
                "µs",
                1,
                Must::Shown,
            ),
            row(
                "cpu-r1000",
                "fixed 1000 requests/s, 32 connections",
                "µs",
                1,
                less(125.0, 95.0, 278.0),
            ),
            row(
                "cpu-r4000",
                "fixed 4000 requests/s, 32 connections",
                "µs",
                1,
                Must::Shown,
            ),
            row(
                "cpu-conn-tcp",
                "new TCP connection with one exchange",
                "µs",
                1,
                Must::Shown,
            ),
            row(
                "cpu-conn-http",
                "new HTTP connection with one request",
                "µs",
                1,
                Must::Shown,
            ),
        ],
    ),
    (
        "Highest rates (client, proxies and server share the machine)",
        &[
            row(
                "rps-c1",
                "HTTP/1.1, 1 connection, small answer",
                "1/s",
                0,
                Must::Shown,
            ),
            row(
                "rps-c32",
                "HTTP/1.1, 32 connections, small answer",
                "1/s",
                0,
                Must::Shown,
            ),
            row(
                "rps-c128",
                "HTTP/1.1, 128 connections, small answer",
                "1/s",
                0,
                Must::Shown,
            ),
            row(
                "rps-10k-c1",
                "HTTP/1.1, 1 connection, 10 KB",
                "1/s",
                0,
                Must::Shown,
            ),
            row(
                "rps-10k",
                "HTTP/1.1, 32 connections, 10 KB",
                "1/s",
                0,
                Must::Shown,
            ),
            row(
                "rps-10k-c128",
                "HTTP/1.1, 128 connections, 10 KB",
                "1/s",
                0,
                Must::Shown,
            ),
            row(
                "rps-h2",
                "HTTP/2 without TLS, 32 streams",
                "1/s",
                0,
                Must::Shown,
            ),
            row(
                "rps-grpc",
                "gRPC unary, empty messages, 32 streams",
                "1/s",
                0,
                Must::Shown,
            ),
            row(
                "rps-h2-100",
                "HTTP/2, 100 B there and back, 32 streams",
                "1/s",
                0,
                Must::Shown,
            ),
            row(
                "rps-h2-10k",
                "HTTP/2, 10 KB there and back, 32 streams",
                "1/s",
                0,
                Must::Shown,
            ),
            row(
                "rps-grpc-100",
                "gRPC unary, 100 B there and back, 32 streams",
                "1/s",
                0,
                Must::Shown,
            ),
            row(
                "rps-grpc-10k",
                "gRPC unary, 10 KB there and back, 32 streams",
                "1/s",
                0,
                Must::Shown,
            ),
            row(
                "rps-both",
                "a message of 100 B in a gRPC stream both ways, 32 streams",
                "1/s",
                0,
                Must::Shown,
            ),
            row(
                "conn-tcp",
                "new TCP connections, 16 at a time",
                "1/s",
                0,
                more(5000.0, 6000.0, 1600.0),
            ),
            row(
                "conn-http",
                "new HTTP connections, 16 at a time",
                "1/s",
                0,
                Must::Shown,
            ),
        ],
    ),
    (
        "Latency at a fixed rate, 32 connections, small answer",
        &[
            row(
                "p50-1000-added",
                "1000/s, p50 above direct",
                "µs",
                0,
                less(120.0, 80.0, 302.0),
            ),
            row("p50-1000", "1000/s, p50", "µs", 0, Must::Shown),
            row("p90-1000", "1000/s, p90", "µs", 0, Must::Shown),
            row(
                "p99-1000",
                "1000/s, p99",
                "µs",
                0,
                less(549.0, 334.0, 993.0),
            ),
            row(
                "p999-1000",
                "1000/s, p99.9 (no claim)",
                "µs",
                0,
                Must::Shown,
            ),
            row("p50-4000", "4000/s, p50", "µs", 0, Must::Shown),
            row("p90-4000", "4000/s, p90", "µs", 0, Must::Shown),
            row(
                "p99-4000",
                "4000/s, p99",
                "µs",
                0,
                less(741.0, 646.0, 1535.0),
            ),
            row(
                "p999-4000",
                "4000/s, p99.9 (no claim)",
                "µs",
                0,
                Must::Shown,
            ),
        ],
    ),
    (
        "Bytes over TCP",
        &[
            row("tcp-rate", "one stream", "GiB/s", 2, more(1.1, 1.3, 0.94)),
            row(
                "tcp-cpu",
                "one stream, CPU of both proxies",
                "s/GiB",
                2,
                less(1.15, 0.95, 1.2),
            ),
            row("tcp8-rate", "eight streams", "GiB/s", 2, Must::Shown),
            row(
                "tcp8-cpu",
                "eight streams, CPU of both proxies",
                "s/GiB",
                2,
                Must::Shown,
            ),
        ],
    ),
    (
        "Bytes over HTTP",
        &[
            row(
                "grpc-up-rate",
                "gRPC streams to the server, messages of 1 KB, 32 at a time",
                "GiB/s",
                2,
                Must::Shown,
            ),
            row(
                "grpc-up-cpu",
                "gRPC streams to the server, messages of 1 KB, 32 at a time, CPU of both proxies",
                "s/GiB",
                2,
                Must::Shown,
            ),
            row(
                "grpc-down-rate",
                "gRPC streams from the server, messages of 1 KB, 32 at a time",
                "GiB/s",
                2,
                Must::Shown,
            ),
            row(
                "grpc-down-cpu",
                "gRPC streams from the server, messages of 1 KB, 32 at a time, CPU of both proxies",
                "s/GiB",
                2,
                Must::Shown,
            ),
            row(
                "get-h1-rate",
                "download of 64 MiB by HTTP/1.1",
                "GiB/s",
                2,
                Must::Shown,
            ),
            row(
                "get-h1-cpu",
                "download of 64 MiB by HTTP/1.1, CPU of both proxies",
                "s/GiB",
                2,
                Must::Shown,
            ),
            row(
                "get-h2-rate",
                "download of 64 MiB by HTTP/2",
                "GiB/s",
                2,
                Must::Shown,
            ),
            row(
                "get-h2-cpu",
                "download of 64 MiB by HTTP/2, CPU of both proxies",
                "s/GiB",
                2,
                Must::Shown,
            ),
        ],
    ),
    (
        "At the edge of the mesh, that process alone, HTTP/1.1 from 32 connections outside",
        &[
            row(
                "cpu-edge",
                "CPU for a request in plaintext",
                "µs",
                1,
                less(0.6, 0.5, 1.0),
            ),
            row(
                "cpu-edge-tls",
                "CPU for a request in TLS",
                "µs",
                1,
                less(0.6, 0.5, 1.0),
            ),
            row(
                "rps-edge",
                "highest rate in plaintext",
                "1/s",
                0,
                Must::Shown,
            ),
            row("rps-edge-tls", "highest rate in TLS", "1/s", 0, Must::Shown),
        ],
    ),
    (
        "Resident memory",
        &[
            row(
                "mem-idle",
                "after start and one request, the larger proxy",
                "MB",
                1,
                Must::AtMost {
                    must: 14.0,
                    aim: 8.0,
                },
            ),
            row(
                "mem-load",
                "under load of 128 connections, the larger proxy",
                "MB",
                1,
                Must::Shown,
            ),
            row(
                "mem-after",
                "after all loads, the larger proxy",
                "MB",
                1,
                Must::Shown,
            ),
            row(
                "mem-conn",
                "per idle connection that made one request, both proxies",
                "KiB",
                1,
                Must::AtMost {
                    must: 8.0,
                    aim: 4.0,
                },
            ),
            row(
                "mem-burst",
                "60 s after 10 000 connections, of before, the larger proxy",
                "%",
                0,
                Must::AtMost {
                    must: 120.0,
                    aim: 120.0,
                },
            ),
            row(
                "mem-crowd",
                "with 1000 Services of 10 endpoints known, client",
                "MB",
                1,
                Must::Shown,
            ),
        ],
    ),
    (
        "Start and page of metrics",
        &[
            row(
                "start",
                "start to ready",
                "ms",
                1,
                Must::AtMost {
                    must: 100.0,
                    aim: 50.0,
                },
            ),
            row(
                "scrape",
                "one scrape of /metrics with 50 destinations, CPU",
                "ms",
                2,
                Must::AtMost {
                    must: 1.5,
                    aim: 1.0,
                },
            ),
            row(
                "apply",
                "a change of 1000 endpoints among 10 000, CPU",
                "ms",
                2,
                Must::Shown,
            ),
            row("binary", "binary", "MB", 1, Must::Shown),
            row("image", "image, its archive", "MB", 1, Must::Shown),
        ],
    ),
];

/// In which a measure is.
pub(crate) fn unit(id: &str) -> &'static str {
    let rows = SECTIONS.iter().flat_map(|(_, rows)| *rows);
    let mut named = rows.filter(|row| row.id == id);
    named.next().map_or("", |row| row.unit)
}

impl Must {
    /// Must and aim for Weft on this machine in this run, given Envoy's figure.
    pub(crate) fn bounds(self, envoy: Option<f64>) -> Option<(f64, f64)> {
        match self {
            Self::NoMore {
                must,
                aim,
                envoy: then,
            }
            | Self::NoLess {
                must,
                aim,
                envoy: then,
            } => {
                let scale = envoy? / then;
                Some((must * scale, aim * scale))
            }
            Self::AtMost { must, aim } => Some((must, aim)),
            Self::Shown => None,
        }
    }

    pub(crate) fn met(self, bound: f64, figure: f64) -> bool {
        match self {
            Self::NoLess { .. } => figure >= bound,
            _ => figure <= bound,
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::{SECTIONS, less, more, unit};
    use crate::loads::COUNTED;

    #[test]
    fn bound_scales_with_envoy_on_slower_machine() {
        let must = less(32.0, 24.0, 52.0);
        assert_eq!(must.bounds(Some(104.0)), Some((64.0, 48.0)));
        assert!(must.met(64.0, 63.9) && !must.met(64.0, 64.1));
        assert_eq!(must.bounds(None), None);
        assert!(more(5000.0, 6000.0, 1600.0).met(100.0, 101.0));
    }

    #[test]
    fn no_two_rows_share_a_name() {
        let rows: Vec<_> = SECTIONS
            .iter()
            .flat_map(|(_, rows)| *rows)
            .map(|row| row.id)
            .collect();
        assert_eq!(rows.iter().collect::<BTreeSet<_>>().len(), rows.len());
    }

    /// A figure that is noted under a name without a row would never be shown.
    #[test]
    fn every_load_with_bodies_has_its_two_rows() {
        for load in COUNTED {
            let (rate, cpu) = (unit(load.rate), unit(load.cpu));
            let bytes = load.bytes.is_some();
            assert_eq!(rate, if bytes { "GiB/s" } else { "1/s" }, "{}", load.rate);
            assert_eq!(cpu, if bytes { "s/GiB" } else { "µs" }, "{}", load.cpu);
        }
    }
}
