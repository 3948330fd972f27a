//! The whole data path in process: two proxies with real certificates and real sockets, an
//! application behind one of them, a client before the other. Pods are loopback addresses. Only
//! the redirection is missing, so the test passes the original address to the proxy.

#![allow(
    clippy::unwrap_used,
    clippy::panic,
    reason = "a test ends with the first surprise"
)]

#[path = "support/pod.rs"]
mod support;

mod path {
    mod access;
    mod answers;
    mod authorities;
    mod away;
    mod balance;
    mod breaker;
    mod bytes;
    mod collector;
    mod contexts;
    mod copied;
    mod counts;
    mod deadlines;
    mod dedicated;
    mod dedicated_close;
    mod drain;
    mod dry_runs;
    mod early;
    mod early_reports;
    mod egress;
    mod egress_tls;
    mod ejected_uploads;
    mod ejection;
    mod end_of_stream;
    mod fallbacks;
    mod faults;
    mod few_threads;
    mod forged_copies;
    mod full_queue;
    mod goaway;
    mod grpc_ends;
    mod half_close;
    mod headless;
    mod http;
    mod idle;
    mod kept_connections;
    mod last_attempt;
    mod late_resets;
    mod left;
    mod leftover;
    mod limits;
    mod lost;
    mod mesh_port;
    mod mirror_bytes;
    mod mirror_ends;
    mod mirror_latency;
    mod mirror_memory;
    mod mirror_older;
    mod mirrors;
    mod names;
    mod outside;
    mod overload;
    mod overrides;
    mod own_tls;
    mod patience;
    mod pods;
    mod policies;
    mod posted_upgrades;
    mod reasons;
    mod records;
    mod refusals;
    mod refused_lines;
    mod retries;
    mod retry_waits;
    mod revoked;
    mod route_calls;
    mod routes;
    mod routing;
    mod sets;
    mod shown;
    mod spans;
    mod switching;
    mod tcp;
    mod tenants;
    mod tracing;
    mod unconfigured;
    mod unread;
    mod waiting;
    mod workloads;
    mod zones;
}
