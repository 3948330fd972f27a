//! The kinds of group `weft.dev`, and the types to which they refer: targets, requests, callers.
//!
//! As with SMI, every type deserializes leniently: the validation, which both the webhook and the
//! controller call, reports the errors. The schemas refuse the same where a schema can, because
//! the webhook may be unreachable.

mod definition;
mod duration;
pub mod validation;

mod authority;
mod canary_release;
mod external_service;
mod fault_experiment;
mod fault_limit;
mod revocation;
mod sections;
mod share;
mod traffic_policy;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::smi::without_defaults;

pub use authority::{
    AuthorityPhase, AuthorityProxies, AuthoritySource, CertificateAuthority,
    CertificateAuthoritySpec, CertificateAuthorityStatus, EXPIRING, IssuerStatus, ROTATING,
    RootState, RootStatus, RotatingReason, RotationReason, RotationRequest, RotationScope,
    RotationStatus, RotationTrigger, USABLE, time_left,
};
pub use canary_release::{
    CanaryChecks, CanaryErrorRate, CanaryLatency, CanaryRelease, CanaryReleaseSpec,
    CanaryReleaseStatus, CanaryRestarts, CanaryStep, CheckCounts, ReleaseCheck, ReleaseHistory,
    ReleasePhase, ReleaseResult, ReleaseRun, RevisionStatus,
};
pub use definition::{authority_definition, definitions, revocation_definition};
pub use duration::{BadDuration, add_up, parse_duration};
pub use external_service::{
    CaRef, ExternalGatewayRef, ExternalService, ExternalServicePort, ExternalServiceSpec,
    ExternalServiceStatus, ExternalSource, ExternalTls,
};
pub use fault_experiment::{
    CheckedErrorRate, ExperimentCalls, ExperimentCheck, ExperimentCheckStatus, ExperimentHistory,
    ExperimentPhase, ExperimentRun, ExperimentSchedule, ExperimentVerdict, FaultAbort, FaultEffect,
    FaultEndpoints, FaultExperiment, FaultExperimentSpec, FaultExperimentStatus, FaultTargetRef,
    NoSettings,
};
pub use fault_limit::{BadFaultLimit, FaultLimit, parse_faults};
pub use revocation::{
    Revocation, RevocationSpec, RevocationStatus, RevokedAccount, RevokedCertificate,
    RevokedIssuer, RevokedNode, RevokedPod, RevokedSubject, RevokedSubjectStatus,
};
pub use sections::{
    Balance, Breaker, Ejection, Fallback, FallbackHeader, FallbackResponse, LimitKey, Mirror,
    Overload, Override, OverrideToken, RateLimit, Retry, RetryBudget, Sticky, Timeouts,
};
pub use traffic_policy::{BreakerStatus, TrafficPolicy, TrafficPolicySpec, TrafficPolicyStatus};

/// API group of Weft's own kinds.
pub const GROUP: &str = "weft.dev";
/// The version in which they are served and stored.
pub const VERSION: &str = "v1alpha1";
/// Its kinds that users make in namespaces, as objects write them.
pub const KINDS: [&str; 4] = [
    "TrafficPolicy",
    "CanaryRelease",
    "FaultExperiment",
    "ExternalService",
];
/// Name of TrafficPolicies in paths.
pub const TRAFFIC_POLICIES: &str = "trafficpolicies";
/// Name of CanaryReleases in paths.
pub const CANARY_RELEASES: &str = "canaryreleases";
/// Name of FaultExperiments in paths.
pub const FAULT_EXPERIMENTS: &str = "faultexperiments";
/// Name of ExternalServices in paths.
pub const EXTERNAL_SERVICES: &str = "externalservices";
/// Name of Revocations in paths, which are in no namespace.
pub const REVOCATIONS: &str = "revocations";
/// Name of CertificateAuthorities in paths.
pub const CERTIFICATE_AUTHORITIES: &str = "certificateauthorities";
/// Name of the only CertificateAuthority.
pub const AUTHORITY: &str = "weft";

/// What a policy is about.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
#[schemars(
    extend("required" = ["kind"]),
    extend("x-kubernetes-validations" = [
        {
            "rule": "self.kind != 'Service' || has(self.name)",
            "message": "name must say which Service",
        },
        {
            "rule": "self.kind == 'Service' || !has(self.name) && !has(self.port)",
            "message": "name and port are for a Service only",
        },
    ]),
    transform = without_defaults
)]
pub struct TargetRef {
    /// `Service` of the policy's namespace, `Namespace` for all Services of the policy's
    /// namespace, or `Mesh` for all Services, in the namespace of the mesh only.
    #[schemars(extend("enum" = ["Service", "Namespace", "Mesh"]))]
    pub kind: String,
    /// Name of the Service. Left out for the other kinds.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 253))]
    pub name: Option<String>,
    /// One port of the Service, by the number that callers use, not the container port, which
    /// TrafficTargets name; all when left out.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 65535))]
    pub port: Option<i64>,
}

/// Requests that some HTTPRouteGroup names.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
#[schemars(extend("required" = ["kind", "name"]), transform = without_defaults)]
pub struct RouteRef {
    /// `HTTPRouteGroup`.
    #[schemars(extend("enum" = ["HTTPRouteGroup"]))]
    pub kind: String,
    /// Name of the object, in this namespace.
    #[schemars(length(min = 1, max = 253))]
    pub name: String,
    /// Names of its matches, at most 64; every match when left out, and none when empty.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 64), inner(length(max = 253)))]
    pub matches: Option<Vec<String>>,
}

/// A caller.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
#[schemars(extend("required" = ["kind", "name"]), transform = without_defaults)]
pub struct SourceRef {
    /// `ServiceAccount`, `IdentityBinding` or `Group`.
    #[schemars(extend("enum" = ["ServiceAccount", "IdentityBinding", "Group"]))]
    pub kind: String,
    /// Name of the service account, the IdentityBinding or the group:
    /// `system:authenticated` (every identity of the mesh) or `system:unauthenticated`
    /// (callers outside the mesh).
    #[schemars(length(min = 1, max = 253))]
    pub name: String,
    /// Namespace of the service account or IdentityBinding; the policy's own when left out.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 63))]
    pub namespace: Option<String>,
}
