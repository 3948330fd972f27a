//! Ports of the proxy itself.
//!
//! Imports nothing of this crate.

pub use policy::well_known::MESH_PORT;
/// Ports that the proxy itself listens on; never redirected, and never delivered to, for any
/// caller.
pub use policy::well_known::PROXY_PORTS as OWN_PORTS;
pub(crate) use policy::well_known::{ADMIN_PORT, INBOUND_PORT, OUTBOUND_PORT};
