//! HTTP as server and as client: messages, their connections, and what a proxy must change in
//! messages that it passes on.
//!
//! Builds on `weft_proxy_net`, and knows nothing of the mesh: the part that opens or accepts a
//! connection reports that a peer proxy is on its other end.

#![cfg_attr(
    not(test),
    warn(
        clippy::disallowed_methods,
        clippy::disallowed_types,
        clippy::large_futures
    )
)]

pub mod body;
pub mod byte_stream;
pub mod client;
pub mod context;
pub mod deadline;
pub mod ending_body;
pub mod failure;
pub mod grpc;
pub mod head;
pub mod header_names;
pub mod headers;
pub mod http2;
pub mod incoming;
pub mod orca;
pub mod plain_stream;
pub mod received;
pub mod refusal;
pub mod replay;
pub mod route_override;
pub mod server;
pub mod shadow;
pub mod stuck_upload;
pub mod unread_body;
pub mod upgrade;
pub mod upload;
pub mod watched;
