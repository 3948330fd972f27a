//! The kinds that are Weft's own, in the group `weft.dev`.
//!
//! As with SMI, every type reads leniently: what is wrong with an object is reported by the
//! judge, which both the webhook and the controller call. The schemas refuse the same
//! where a schema can, because the webhook may be away.

mod definition;
mod duration;
pub mod judge;

mod refs;
mod sections;
mod traffic_policy;

pub use definition::definitions;
pub use duration::{BadDuration, add_up, parse_duration};
pub use refs::{RouteRef, SourceRef, TargetRef};
pub use sections::{
    Balance, Breaker, Ejection, Fallback, FallbackHeader, FallbackResponse, LimitKey, Mirror,
    Overload, Override, OverrideToken, RateLimit, Retry, RetryBudget, Sticky, Timeouts,
};
pub use traffic_policy::{BreakerStatus, TrafficPolicy, TrafficPolicySpec, TrafficPolicyStatus};

/// API group of Weft's own kinds.
pub const GROUP: &str = "weft.dev";
/// The version in which they are served and stored.
pub const VERSION: &str = "v1alpha1";
/// Name of TrafficPolicies in paths.
pub const TRAFFIC_POLICIES: &str = "trafficpolicies";
