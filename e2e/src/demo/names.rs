//! What the demo's objects are called.

/// The demo's own namespace.
pub const NAMESPACE: &str = "shop";
/// By service account, which is also what a pod is called by in policy.
pub const SERVICES: [&str; 4] = ["web", "cart", "catalog", "payments"];
