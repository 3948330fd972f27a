//! Ports of the proxy itself.
//!
//! Imports nothing of this crate.

/// The proxy's listener for connections that the application makes.
pub(crate) const OUTBOUND_PORT: u16 = 15101;
/// The proxy's listener for connections to the application from outside the mesh.
pub(crate) const INBOUND_PORT: u16 = 15106;
/// The proxy's listener for its peers.
pub const MESH_PORT: u16 = 15108;
/// Metrics, readiness, rewritten probes.
pub(crate) const ADMIN_PORT: u16 = 15190;
/// Ports that the proxy itself listens on; never redirected, and never delivered to,
/// whoever asks.
pub const OWN_PORTS: [u16; 4] = [OUTBOUND_PORT, INBOUND_PORT, MESH_PORT, ADMIN_PORT];
