//! CertificateAuthority: the mesh's certificate authority as users see it, and how they ask for its
//! rotation.
//!
//! There is one object, `weft`, which the controller makes. It holds no key and no certificate:
//! deleting it, or an edit of its status, changes nothing but what is shown.

use std::time::Duration;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{CERTIFICATE_AUTHORITIES, GROUP, VERSION};
use crate::{
    kind::{kind, status_words},
    smi::{conditions_schema, without_defaults},
};

/// Condition: leaves can be issued, and nothing that its source offers is refused.
pub const USABLE: &str = "Usable";
/// Condition: one root or issuer replaces another. Its reasons are [`RotatingReason`]s. Its
/// `observedGeneration` is the generation whose request the controller has taken, refused or found
/// to have run before.
pub const ROTATING: &str = "Rotating";
/// Condition: the root or the issuer ends soon, and what renews it has not.
pub const EXPIRING: &str = "Expiring";

/// Days of a year in what people read.
const YEAR: u64 = 365;

kind! {
    /// The certificate authority of the mesh: its roots, its issuers, and their rotation.
    CertificateAuthority, spec CertificateAuthoritySpec, status CertificateAuthorityStatus,
    group GROUP, version VERSION, plural CERTIFICATE_AUTHORITIES,
    scope kube::core::ClusterResourceScope
}

/// What is asked of the certificate authority.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
#[schemars(transform = without_defaults)]
pub struct CertificateAuthoritySpec {
    /// A rotation that runs once, now. When left out, the authority is rotated by itself at two
    /// thirds of its root's life.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub rotation: Option<RotationRequest>,
}

/// A rotation that a user asks for.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
#[schemars(
    extend("required" = ["id"]),
    extend("x-kubernetes-validations" = [
        { "rule": "!(has(self.scope) && self.scope == 'Issuer' && has(self.reason) && self.reason == 'Compromise')", "message": "a compromise needs scope Root: under the same root the stolen issuer stays trusted" },
    ]),
    transform = without_defaults
)]
pub struct RotationRequest {
    /// Name of the rotation, such as `audit-2026`. None of the last 16 runs again, so the object
    /// may be applied again unchanged.
    #[schemars(
        length(min = 1, max = 63),
        regex(pattern = r"^[A-Za-z0-9]([-A-Za-z0-9_.]*[A-Za-z0-9])?$")
    )]
    pub id: String,
    /// `Root` replaces the root and the issuer, `Issuer` the issuer under the same root. Root when
    /// left out.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(extend("enum" = ["Root", "Issuer"]))]
    pub scope: Option<String>,
    /// `Planned` waits for every proxy and loses nothing. `Compromise` waits seconds, and ends what
    /// was opened with certificates of the old root. Planned when left out.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(extend("enum" = ["Planned", "Compromise"]))]
    pub reason: Option<String>,
}

/// What the mesh says about its certificate authority.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
#[schemars(
    extend("x-kubernetes-preserve-unknown-fields" = true),
    transform = without_defaults
)]
pub struct CertificateAuthorityStatus {
    /// `Steady`, `Preparing`, `Activating` or `Retiring`. Left out until Weft has seen the object.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub phase: Option<String>,
    /// Where the issuer comes from: `Generated`, `Secret` or `Files`. Left out until Weft has seen
    /// the object.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub source: Option<String>,
    /// What happens and what comes next, for the columns of `kubectl get`. Left out when there is
    /// nothing to say.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub summary: Option<String>,
    /// The rotation, also after its end until the next. Left out before the first.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub rotation: Option<RotationStatus>,
    /// The trusted roots, the active one first, at most 16. Empty until Weft has seen the object.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 16))]
    pub roots: Vec<RootStatus>,
    /// What signs leaves, at most 8. Empty until Weft has seen the object.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 8))]
    pub issuers: Vec<IssuerStatus>,
    /// Fingerprints of roots that a compromise has retired, the newest first, at most 8: they are
    /// never taken again. Empty without any.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 8))]
    pub retired: Vec<String>,
    /// How far the proxies are. Left out until Weft has seen the object.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub proxies: Option<AuthorityProxies>,
    /// How long the active root is valid, such as `9y364d`, for the columns of `kubectl get`. Left
    /// out until Weft has seen the object.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub root_ends: Option<String>,
    /// How long the issuer that ends first is valid, for the columns of `kubectl get`. Left out
    /// until Weft has seen the object.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub issuer_ends: Option<String>,
    /// Proxies that trust the first root, such as `412/412`, for the columns of `kubectl get`. Left
    /// out until Weft has seen the object.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub trusting: Option<String>,
    /// Proxies whose certificate is under the first root, for the columns of `kubectl get`. Left
    /// out until Weft has seen the object.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub renewed: Option<String>,
    /// `Usable`, `Rotating` and `Expiring`, each with its reason. Empty until Weft has seen the
    /// object.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    #[schemars(schema_with = "conditions_schema")]
    pub conditions: Vec<Condition>,
}

/// One rotation.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
#[schemars(transform = without_defaults)]
pub struct RotationStatus {
    /// Its id. Left out for one that no user asked for.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub id: Option<String>,
    /// What began it: `Request`, `Life` or `Source`. Never left out.
    pub trigger: String,
    /// `Planned` or `Compromise`. Planned when left out.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
    /// When it began, RFC 3339. Left out when it is not known.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub since: Option<String>,
    /// When its phase began, RFC 3339. Left out when it is not known.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub phase_since: Option<String>,
}

/// One root.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
#[schemars(transform = without_defaults)]
pub struct RootStatus {
    /// `sha256:` and the SHA-256 of its certificate in hex. Never left out.
    pub fingerprint: String,
    /// `sha256:` and the first half of the SHA-256 of its name and key in hex, by which `retired`
    /// names it. Left out when it is not known.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub authority: Option<String>,
    /// When it ends, RFC 3339. Left out when it is not known.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub not_after: Option<String>,
    /// `Next`, `Active` or `Old`. Never left out.
    pub state: String,
}

/// One issuer.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
#[schemars(transform = without_defaults)]
pub struct IssuerStatus {
    /// `sha256:` and the SHA-256 of its certificate in hex. Never left out.
    pub fingerprint: String,
    /// `sha256:` and the first half of the SHA-256 of its name and key in hex, by which a Revocation
    /// names it. Left out when it is not known.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub authority: Option<String>,
    /// When it ends, RFC 3339. Left out when it is not known.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub not_after: Option<String>,
    /// When Weft renews it, RFC 3339. Left out when its owner does.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub renews_at: Option<String>,
}

/// How far the proxies are in a rotation.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
#[schemars(transform = without_defaults)]
pub struct AuthorityProxies {
    /// Proxies that count. 0 when left out.
    #[schemars(range(min = 0))]
    pub total: i64,
    /// Those that trust the first root. 0 when left out.
    #[schemars(range(min = 0))]
    pub trusting: i64,
    /// Those whose certificate is under the first root. 0 when left out.
    #[schemars(range(min = 0))]
    pub renewed: i64,
    /// The first of those that the phase waits for, each with the reason, at most 8. Empty when it
    /// waits for none.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 8))]
    pub waiting_for: Vec<String>,
}

status_words! {
    /// What the authority does, as its status has it.
    AuthorityPhase {
        /// No rotation.
        Steady,
        /// The old root signs, and proxies get the new one.
        Preparing,
        /// The new root signs, and proxies get leaves under it.
        Activating,
        /// Proxies forget the old root.
        Retiring,
    }
}

status_words! {
    /// Where the issuer comes from.
    AuthoritySource {
        /// Weft makes it.
        Generated,
        /// A Secret of the release's namespace.
        Secret,
        /// The folder of each controller.
        Files,
    }
}

status_words! {
    /// What a rotation replaces.
    RotationScope {
        /// The root and the issuer.
        Root,
        /// The issuer, under the same root.
        Issuer,
    }
}

status_words! {
    /// Why a user asks for a rotation.
    RotationReason {
        /// Nothing is lost by waiting.
        Planned,
        /// A key was stolen.
        Compromise,
    }
}

status_words! {
    /// What began a rotation.
    RotationTrigger {
        /// A user.
        Request,
        /// The age of the root.
        Life,
        /// Another issuer in the source, or another source.
        Source,
    }
}

status_words! {
    /// What a root is for.
    RootState {
        /// It is trusted, and signs soon.
        Next,
        /// What is issued now is under it.
        Active,
        /// It is trusted for as long as proxies have certificates under it.
        Old,
    }
}

status_words! {
    /// Reasons of the condition `Rotating`: it is True with the first three, which are phases, and
    /// with `Waiting`.
    RotatingReason {
        /// As the phase of this name.
        Preparing,
        /// As the phase of this name.
        Activating,
        /// As the phase of this name.
        Retiring,
        /// The phase waits for longer than it should.
        Waiting,
        /// The last rotation has ended, also where it needed no phases.
        Done,
        /// There was none yet.
        NeverRotated,
        /// The root is not Weft's to replace.
        RootIsExternal,
    }
}

/// A time that is left, as people write it: `9y364d`, `89d`, `47h`, `10m`, `0m`. Two units at
/// most, so that it changes seldom.
#[must_use]
pub fn time_left(left: Duration) -> String {
    let minutes = left.as_secs() / 60;
    let (hours, days) = (minutes / 60, minutes / (24 * 60));
    match (days / YEAR, days, hours) {
        (0, 0..2, 0..2) => format!("{minutes}m"),
        (0, 0..2, hours) => format!("{hours}h"),
        (0, days, _) => format!("{days}d"),
        (years, days, _) => format!("{years}y{}d", days % YEAR),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn time_left_reads_in_its_two_largest_units() {
        let hours = |hours: u64| Duration::from_secs(hours * 3600);
        for (left, written) in [
            (hours(87_660) - Duration::from_secs(1), "10y2d"),
            (hours(24 * 365), "1y0d"),
            (hours(24 * 90) - Duration::from_secs(1), "89d"),
            (hours(47), "47h"),
            (hours(2) - Duration::from_secs(1), "119m"),
            (Duration::ZERO, "0m"),
        ] {
            assert_eq!(time_left(left), written);
        }
    }
}
