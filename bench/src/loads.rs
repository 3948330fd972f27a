//! The loads of a round, in tables: calls at the highest rate, and calls with bodies.

use std::time::Duration;

use anyhow::Result;

use crate::grpc::{EMPTY_MESSAGE, STREAM, framed};
use crate::load::{self, Calls};
use crate::load_result::LoadResult;
use crate::system::{Port, System};

/// One load of HTTP at the highest rate.
pub(crate) struct Http {
    pub(crate) cpu: &'static str,
    pub(crate) rate: &'static str,
    port: Port,
    path: &'static str,
    connections: u32,
    pub(crate) full_only: bool,
}

impl Http {
    pub(crate) fn make(&self, system: &System, time: Duration) -> Result<LoadResult> {
        load::wrk(system, self.port, self.path, self.connections, time, true)
    }
}

const fn http(
    cpu: &'static str,
    rate: &'static str,
    path: &'static str,
    connections: u32,
    full_only: bool,
) -> Http {
    Http {
        cpu,
        rate,
        port: Port::Http1,
        path,
        connections,
        full_only,
    }
}

pub(crate) const HTTP: &[Http] = &[
    http("cpu-c1", "rps-c1", "/bench", 1, false),
    http("cpu-c32", "rps-c32", "/bench", 32, false),
    http("cpu-c128", "rps-c128", "/bench", 128, false),
    http("cpu-10k", "rps-10k", "/bench10k", 32, false),
    http("cpu-10k-c1", "rps-10k-c1", "/bench10k", 1, true),
    http("cpu-10k-c128", "rps-10k-c128", "/bench10k", 128, true),
];

/// Bytes of the large file.
pub(crate) const LARGE: usize = 64 * 1024 * 1024;
/// Content of bodies; the larger one is the file that HTTP/1.1 gets.
pub(crate) const BODY: u32 = 100;
pub(crate) const BODY_10K: u32 = 10 * 1024;

/// Calls with bodies, and downloads.
pub(crate) struct Counted {
    pub(crate) step: &'static str,
    pub(crate) cpu: &'static str,
    pub(crate) rate: &'static str,
    pub(crate) calls: Calls,
    /// Of each call, where bytes are what is measured.
    pub(crate) bytes: Option<usize>,
    pub(crate) full_only: bool,
}

const fn calls(step: &'static str, cpu: &'static str, rate: &'static str, calls: Calls) -> Counted {
    Counted {
        step,
        cpu,
        rate,
        calls,
        bytes: None,
        full_only: false,
    }
}

const fn bytes(
    step: &'static str,
    ids: (&'static str, &'static str),
    made: Calls,
    bytes: usize,
) -> Counted {
    Counted {
        bytes: Some(bytes),
        ..calls(step, ids.0, ids.1, made)
    }
}

const UNARY: &str = "/bench.Echo/Unary";

pub(crate) const COUNTED: &[Counted] = &[
    Counted {
        full_only: true,
        ..calls(
            "gRPC",
            "cpu-grpc",
            "rps-grpc",
            Calls::grpc(UNARY, "grpc", EMPTY_MESSAGE.len()),
        )
    },
    calls(
        "HTTP/2 with 100 B",
        "cpu-h2-100",
        "rps-h2-100",
        Calls::echo("100", BODY as usize),
    ),
    calls(
        "HTTP/2 with 10 KB",
        "cpu-h2-10k",
        "rps-h2-10k",
        Calls::echo("10k", BODY_10K as usize),
    ),
    calls(
        "gRPC with 100 B",
        "cpu-grpc-100",
        "rps-grpc-100",
        Calls::grpc(UNARY, "grpc-100", framed(BODY)),
    ),
    calls(
        "gRPC with 10 KB",
        "cpu-grpc-10k",
        "rps-grpc-10k",
        Calls::grpc(UNARY, "grpc-10k", framed(BODY_10K)),
    ),
    bytes(
        "gRPC stream to the server",
        ("grpc-up-cpu", "grpc-up-rate"),
        Calls::stream("/bench.Echo/Collect", "grpc-stream", EMPTY_MESSAGE.len()),
        STREAM,
    ),
    bytes(
        "gRPC stream from the server",
        ("grpc-down-cpu", "grpc-down-rate"),
        Calls::stream("/bench.Echo/Produce", "grpc", STREAM),
        STREAM,
    ),
    bytes(
        "download by HTTP/1.1",
        ("get-h1-cpu", "get-h1-rate"),
        Calls::download(Port::Http1, "/bench-large", LARGE),
        LARGE,
    ),
    bytes(
        "download by HTTP/2",
        ("get-h2-cpu", "get-h2-rate"),
        Calls::download(Port::Http2, "/bench-large", LARGE),
        LARGE,
    ),
];
