//! HTTP as server and as client: messages, the connections that carry them, and what
//! a proxy must do to them on the way.
//!
//! Imports `failure` and `net`. It never names the mesh: who is on the other end of a
//! connection is told by whoever opens or accepts it.

pub mod body;
pub mod byte_stream;
pub mod client;
pub mod grpc;
pub mod headers;
pub mod http2;
pub mod incoming;
pub mod limits;
pub mod received;
pub mod refusal;
pub mod replay;
pub mod server;
pub mod upgrade;
pub mod upload;
pub mod watched;
