//! The data plane: a proxy beside every pod, and the redirection that brings
//! the pod's traffic to it.
//!
//! Sockets and HTTP are the crates in `net` and `http` beside `src`.
//!
//! `outbound` and `inbound` serve connections; everything else is a step of one of the
//! two, or keeps what they need up to date. `process` puts the parts together. Modules
//! are private: what `main` and the integration tests name is re-exported here.

#![cfg_attr(
    not(test),
    warn(
        clippy::disallowed_methods,
        clippy::disallowed_types,
        clippy::large_futures
    )
)]

mod admin;
mod capture;
mod config;
mod control;
mod drain;
mod endpoints;
#[cfg(test)]
mod future_sizes;
mod inbound;
mod mesh;
mod originate;
mod outbound;
mod probe;
mod process;
mod proxy;
mod settings;
mod telemetry;

// What paths from `crate::http`, `crate::failure` and `crate::net` mean: the crates beside `src`.
use ::weft_proxy_http as http;
use ::weft_proxy_http::failure;
use ::weft_proxy_net as net;

// The program.
pub use crate::capture::agent::command as capture_agent_command;
pub use crate::capture::command as capture_command;
pub use crate::drain::command::command as drain_command;
pub use crate::process::collector::{Connector, Opened, connector, serve as serve_to_collector};
pub use crate::process::heap::{count as heap_count, in_use as heap_in_use};
pub use crate::process::listener::{Addresses, ServedWorkload, listen, no_ipv6};
pub use crate::process::permits::{Permits, of_listener, warn_of_few_files};
pub use crate::process::relief::relieve;
pub use crate::process::{Process, Running, follow_revocations, run, run_with, sweep};
pub use crate::settings::{Own, Settings};
pub use crate::telemetry::access_log::flush as flush_access_log;

// The program of a Gateway, which serves listeners of its own.
pub use crate::config::gateway::{GatewayConfig, ServedCertificate, ServedGateway};
pub use crate::outbound::{Edge, Enters, ListenerConnection, serve_handed_over};

// A pod in process, as the integration tests make it.
pub use crate::config::store::Store;
pub use crate::drain::Drain;
pub use crate::http::body::empty as empty_body;
pub use crate::http::client::Clients;
pub use crate::http::client::dedicated::{Acquire, Dedicated};
pub use crate::http::replay::Replay;
pub use crate::inbound::{serve_mesh, serve_plain};
pub use crate::mesh::peer::Peers;
pub use crate::mesh::protocol::{AppHttp, AppPort, HandedOver, PeerRequest};
pub use crate::mesh::tls::MeshTls;
pub use crate::net::budget::Budget;
pub use crate::net::connect::tune_closely;
pub use crate::net::original_dst::original_dst;
pub use crate::outbound::serve as serve_outbound;
pub use crate::proxy::Proxy;
pub use crate::telemetry::Telemetry;
pub use crate::telemetry::families::CallFamilies;
pub use crate::telemetry::labels::{
    AttemptLabels, AuditLabels, BreakerLabels, ByteLabels, CancelledLabels, ConnectionLabels,
    ContextLabels, Direction, EjectionLabels, FallbackLabels, FaultLabels, LatencyLabels,
    LimitLabels, LocalityLabels, MirrorLabels, OverloadLabels, OverrideLabels, Port,
    RateLimitedLabels, RequestLabels, RetryLabels, RouteLabel, Security, ShadowLabels, ShedLabels,
    SpanLabels, TcpLabels, TelemetryDroppedLabels, ThrottledLabels, TlsLabels,
};
pub use crate::telemetry::metrics::Metrics;
pub use crate::telemetry::startup::StartupStep;
pub use crate::telemetry::trace::export::export as export_telemetry;
pub use crate::telemetry::trace::signal::Signal;
pub use policy::well_known::{MESH_PORT, PROXY_PORTS as OWN_PORTS};
