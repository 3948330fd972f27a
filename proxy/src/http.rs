//! HTTP as server and as client: messages, the connections that carry them, and what a proxy must
//! do to them on the way.
//!
//! Imports `failure` and `net`, and nothing of the mesh: the part that opens or accepts a
//! connection says that a peer proxy is on its other end.

pub(crate) mod body;
pub(crate) mod byte_stream;
pub(crate) mod client;
pub(crate) mod context;
pub(crate) mod deadline;
pub(crate) mod ending_body;
pub(crate) mod grpc;
pub(crate) mod head;
pub(crate) mod header_names;
pub(crate) mod headers;
pub(crate) mod http2;
pub(crate) mod incoming;
pub(crate) mod orca;
pub(crate) mod plain_stream;
pub(crate) mod received;
pub(crate) mod refusal;
pub(crate) mod replay;
pub(crate) mod route_override;
pub(crate) mod server;
pub(crate) mod shadow;
pub(crate) mod stuck_upload;
pub(crate) mod unread_body;
pub(crate) mod upgrade;
pub(crate) mod upload;
pub(crate) mod watched;
