//! The SMI kinds, and the versions in which each exists.

use std::fmt;

use policy::name::Kind;
use serde::{Deserialize, Serialize};

use super::{ACCESS_GROUP, SPECS_GROUP, SPLIT_GROUP};

/// Declares the type of one kind of SMI in its storage version.
macro_rules! smi_kind {
    ($(#[$doc:meta])* $type:ident, spec $spec:ty, kind $kind:ident) => {
        crate::kind::kind! {
            $(#[$doc])*
            $type, spec $spec, status crate::smi::Status,
            group crate::smi::SmiKind::$kind.group(), version crate::smi::STORAGE_VERSION,
            plural crate::smi::SmiKind::$kind.plural()
        }
    };
}
pub(super) use smi_kind;

/// A kind of SMI that is stored as an object.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SmiKind {
    /// Allows callers to reach a destination.
    TrafficTarget,
    /// Describes workloads by account, labels or SPIFFE id.
    IdentityBinding,
    /// Names sets of HTTP requests.
    HttpRouteGroup,
    /// Names TCP ports.
    TcpRoute,
    /// Names UDP ports.
    UdpRoute,
    /// Shares a Service's traffic out.
    TrafficSplit,
}

impl SmiKind {
    /// Every kind.
    pub const ALL: [Self; 6] = [
        Self::TrafficTarget,
        Self::IdentityBinding,
        Self::HttpRouteGroup,
        Self::TcpRoute,
        Self::UdpRoute,
        Self::TrafficSplit,
    ];

    /// The kind and version that `apiVersion` and `kind` of an object name.
    pub fn read(api_version: &str, kind: &str) -> Option<(Self, SmiVersion)> {
        let (group, _) = api_version.split_once('/')?;
        let kind = Self::named(group, kind)?;
        Some((kind, kind.version(api_version)?))
    }

    /// The kind of a group that has this name.
    pub fn named(group: &str, name: &str) -> Option<Self> {
        let mut all = Self::ALL.into_iter();
        all.find(|known| known.group() == group && known.name() == name)
    }

    /// The kind of SMI that this is, if it is one.
    pub fn of(kind: Kind) -> Option<Self> {
        Self::ALL.into_iter().find(|known| known.kind() == kind)
    }

    /// As decisions and statuses know it.
    pub fn kind(self) -> Kind {
        match self {
            Self::TrafficTarget => Kind::TrafficTarget,
            Self::IdentityBinding => Kind::IdentityBinding,
            Self::HttpRouteGroup => Kind::HttpRouteGroup,
            Self::TcpRoute => Kind::TcpRoute,
            Self::UdpRoute => Kind::UdpRoute,
            Self::TrafficSplit => Kind::TrafficSplit,
        }
    }

    /// The version that an `apiVersion` names, if the kind has it.
    pub fn version(self, api_version: &str) -> Option<SmiVersion> {
        let (group, name) = api_version.split_once('/')?;
        self.versions()
            .iter()
            .copied()
            .find(|version| group == self.group() && version.name() == name)
    }

    /// The versions of the kind, oldest first.
    pub fn versions(self) -> &'static [SmiVersion] {
        match self {
            Self::IdentityBinding | Self::UdpRoute => &[SmiVersion::V1alpha4],
            _ => &SmiVersion::ALL,
        }
    }

    /// `kind`.
    pub fn name(self) -> &'static str {
        self.kind().as_str()
    }

    /// Name of the kind's resources in paths.
    pub fn plural(self) -> &'static str {
        match self {
            Self::TrafficTarget => "traffictargets",
            Self::IdentityBinding => "identitybindings",
            Self::HttpRouteGroup => "httproutegroups",
            Self::TcpRoute => "tcproutes",
            Self::UdpRoute => "udproutes",
            Self::TrafficSplit => "trafficsplits",
        }
    }

    /// Name of the CustomResourceDefinition.
    pub fn definition(self) -> String {
        format!("{}.{}", self.plural(), self.group())
    }

    /// The API group.
    pub fn group(self) -> &'static str {
        match self {
            Self::TrafficTarget | Self::IdentityBinding => ACCESS_GROUP,
            Self::HttpRouteGroup | Self::TcpRoute | Self::UdpRoute => SPECS_GROUP,
            Self::TrafficSplit => SPLIT_GROUP,
        }
    }

    /// `apiVersion` of the kind in a version.
    pub fn api_version(self, version: SmiVersion) -> String {
        format!("{}/{version}", self.group())
    }
}

/// A version of SMI's APIs. Older is less.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum SmiVersion {
    /// The first.
    V1alpha1,
    /// The second.
    V1alpha2,
    /// The third.
    V1alpha3,
    /// The last, in which everything is stored.
    V1alpha4,
}

impl SmiVersion {
    /// Every version, oldest first.
    pub const ALL: [Self; 4] = [
        Self::V1alpha1,
        Self::V1alpha2,
        Self::V1alpha3,
        Self::V1alpha4,
    ];
    /// The version that everything is stored in.
    pub const STORAGE: Self = Self::V1alpha4;

    /// As in an `apiVersion`.
    pub fn name(self) -> &'static str {
        match self {
            Self::V1alpha1 => "v1alpha1",
            Self::V1alpha2 => "v1alpha2",
            Self::V1alpha3 => "v1alpha3",
            Self::V1alpha4 => "v1alpha4",
        }
    }
}

impl fmt::Display for SmiVersion {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}
