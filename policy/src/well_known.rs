//! Constants that both planes, the injector and the capture share: ports, the proxy's own user,
//! service accounts, the audience of tokens.
//!
//! They are written into pods of running clusters: a change of one breaks pods that were injected
//! before.

use std::time::Duration;

/// Where the proxy takes what the application sends.
pub const OUTBOUND_PORT: u16 = 15101;
/// Where the proxy takes what comes to the application in plaintext.
pub const INBOUND_PORT: u16 = 15106;
/// Where the proxy takes what other proxies send.
pub const MESH_PORT: u16 = 15108;
/// Probes, metrics and the kubelet's requests.
pub const ADMIN_PORT: u16 = 15190;
/// Ports that the proxy itself listens on. No container of a meshed pod may use them; they are never
/// redirected, and nothing is delivered to them.
pub const PROXY_PORTS: [u16; 4] = [OUTBOUND_PORT, INBOUND_PORT, MESH_PORT, ADMIN_PORT];

/// Uid and gid of the proxy; what they send is not redirected.
pub const PROXY_UID: u32 = 15190;

/// Service and ServiceAccount of the controller.
pub const CONTROLLER: &str = "weft-controller";
/// Service and ServiceAccount of the injector, and its MutatingWebhookConfiguration.
pub const INJECTOR: &str = "weft-injector";

/// Audience of the tokens that proxies show to the controller.
pub const TOKEN_AUDIENCE: &str = "weft.dev";

/// Every certificate is valid from this long before its issue, so that a node whose clock is
/// behind can use it at once. Readers of a certificate learn from this when it was issued.
pub const BACKDATE: Duration = Duration::from_secs(5 * 60);

/// Headers that prove an identity or a permission, in small letters: no tap shows them to
/// any client.
pub const SECRET_HEADERS: [&str; 6] = [
    "authorization",
    "proxy-authorization",
    "cookie",
    "set-cookie",
    "weft-route-token",
    "weft-proof",
];
