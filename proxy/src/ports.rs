//! Ports of the proxy itself.

pub const OUTBOUND_PORT: u16 = 15101;
pub const INBOUND_PORT: u16 = 15106;
pub const ADMIN_PORT: u16 = 15190;
/// Never delivered to, whoever asks.
pub const OWN_PORTS: [u16; 4] = [OUTBOUND_PORT, INBOUND_PORT, MESH_PORT, ADMIN_PORT];

pub const MESH_PORT: u16 = 15108;
