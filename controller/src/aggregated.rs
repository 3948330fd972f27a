//! What the controller's aggregated APIs share: the HTTPS port, its certificate, verification of
//! the API server as caller, the check of the user's rights, and parsing of parameters.
//!
//! May import `authority`. It names no API: its caller passes the APIs that it serves.

pub(crate) mod access;
pub(crate) mod bodies;
pub(crate) mod certificate;
pub(crate) mod duration;
pub(crate) mod front_proxy;
mod pace;
pub(crate) mod parameters;
mod permits;
pub(crate) mod refusal;
pub(crate) mod selector;
pub(crate) mod server;
