//! What every aggregated API needs: proof that the API server calls and on whose behalf,
//! whether that user may, a certificate that the API server trusts, and the port itself; and
//! what clients write alike for all of them.
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
