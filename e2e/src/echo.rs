//! The application that tests put into the mesh, and the clients that tests run
//! from within pods.
//!
//! One static binary does both, because an image from scratch has no shell and
//! no curl: `weft-echo` serves, `weft-echo get URL` asks.

pub mod app;
pub mod args;
pub mod call;
pub mod client;
pub mod duration;
pub mod fault;
pub mod grpc;
pub mod load;
pub mod next;
pub mod posted;
pub mod reply;
pub mod request_log;
pub mod response;
pub mod seen;
pub mod serve;
pub mod settings;
pub mod talk;
pub mod tcp;
pub mod tls;
pub mod websocket;

#[cfg(test)]
mod tests;
