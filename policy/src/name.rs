//! The names of Services and identities, parsed once at the edge and compared as strings.
//!
//! A SPIFFE id decides which caller may call what, so it is parsed strictly and never
//! normalised: two spellings of one identity cannot exist, because only one of
//! them parses.

use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

/// A Kubernetes Service.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ServiceId {
    pub namespace: Arc<str>,
    pub name: Arc<str>,
}

impl ServiceId {
    pub fn new(namespace: impl Into<Arc<str>>, name: impl Into<Arc<str>>) -> Self {
        Self {
            namespace: namespace.into(),
            name: name.into(),
        }
    }
}

impl fmt::Display for ServiceId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.namespace, self.name)
    }
}

/// The SPIFFE standard lets implementations refuse longer ids.
const MAX_SPIFFE_ID: usize = 2048;
/// Length limit of a trust domain in the SPIFFE standard.
const MAX_TRUST_DOMAIN: usize = 255;
const SCHEME: &str = "spiffe://";

/// Identity of a workload, `spiffe://<trust domain>/<path>`.
///
/// Holding one proves the strict form: lower-case trust domain, at least one
/// path segment, no empty, `.` or `..` segment, no escape, query or port.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SpiffeId(Arc<str>);

/// Why a text is no SPIFFE id of a workload.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BadSpiffeId {
    #[error("does not begin with spiffe://")]
    Scheme,
    #[error("is longer than {MAX_SPIFFE_ID} bytes")]
    TooLong,
    #[error("trust domain must be 1 to {MAX_TRUST_DOMAIN} of a-z 0-9 . - _")]
    TrustDomain,
    #[error("names no workload: the path is missing")]
    NoPath,
    #[error("path segments must be of A-Z a-z 0-9 . - _ and neither empty nor . nor ..")]
    Segment,
}

impl SpiffeId {
    /// The id of a service account: `spiffe://<trust domain>/ns/<namespace>/sa/<account>`.
    ///
    /// Fails when a part is no single path segment, so a name with a slash
    /// cannot pass for another account.
    pub fn of(
        trust_domain: &str,
        namespace: &str,
        service_account: &str,
    ) -> Result<Self, BadSpiffeId> {
        check_segment(namespace)?;
        check_segment(service_account)?;
        Self::try_from(
            format!("{SCHEME}{trust_domain}/ns/{namespace}/sa/{service_account}").as_str(),
        )
    }

    pub fn as_str(&self) -> &str {
        &self.0
    }

    pub fn trust_domain(&self) -> &str {
        self.split().0
    }

    /// Namespace of the service account; `None` when the path has another form
    /// than `/ns/<namespace>/sa/<account>`.
    pub fn namespace(&self) -> Option<&str> {
        self.account().map(|(namespace, _)| namespace)
    }

    /// Name of the service account; `None` as for [`SpiffeId::namespace`].
    pub fn service_account(&self) -> Option<&str> {
        self.account().map(|(_, account)| account)
    }

    /// What follows the trust domain and its slash.
    pub(crate) fn path(&self) -> &str {
        self.split().1
    }

    fn account(&self) -> Option<(&str, &str)> {
        let mut segments = self.path().split('/');
        match (
            segments.next(),
            segments.next(),
            segments.next(),
            segments.next(),
            segments.next(),
        ) {
            (Some("ns"), Some(namespace), Some("sa"), Some(account), None) => {
                Some((namespace, account))
            }
            _ => None,
        }
    }

    /// Trust domain and path, without the slash between them.
    fn split(&self) -> (&str, &str) {
        let rest = self.0.get(SCHEME.len()..).unwrap_or_default();
        rest.split_once('/').unwrap_or((rest, ""))
    }
}

impl TryFrom<&str> for SpiffeId {
    type Error = BadSpiffeId;

    fn try_from(raw: &str) -> Result<Self, BadSpiffeId> {
        if raw.len() > MAX_SPIFFE_ID {
            return Err(BadSpiffeId::TooLong);
        }
        let rest = raw.strip_prefix(SCHEME).ok_or(BadSpiffeId::Scheme)?;
        let (domain, path) = match rest.split_once('/') {
            Some((domain, path)) => (domain, Some(path)),
            None => (rest, None),
        };
        let domain_ok = |b: u8| matches!(b, b'a'..=b'z' | b'0'..=b'9' | b'.' | b'-' | b'_');
        if domain.is_empty() || domain.len() > MAX_TRUST_DOMAIN || !domain.bytes().all(domain_ok) {
            return Err(BadSpiffeId::TrustDomain);
        }
        path.ok_or(BadSpiffeId::NoPath)?
            .split('/')
            .try_for_each(check_segment)?;
        Ok(Self(raw.into()))
    }
}

fn check_segment(segment: &str) -> Result<(), BadSpiffeId> {
    let ok = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'-' | b'_');
    if matches!(segment, "" | "." | "..") || !segment.bytes().all(ok) {
        return Err(BadSpiffeId::Segment);
    }
    Ok(())
}

impl FromStr for SpiffeId {
    type Err = BadSpiffeId;

    fn from_str(raw: &str) -> Result<Self, BadSpiffeId> {
        Self::try_from(raw)
    }
}

impl fmt::Display for SpiffeId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Debug for SpiffeId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "SpiffeId({})", self.0)
    }
}

/// Kinds of objects that configuration comes from or that status speaks about.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Kind {
    TrafficTarget,
    TrafficSplit,
    IdentityBinding,
    TrafficPolicy,
    CanaryRelease,
    FaultExperiment,
    ExternalService,
    /// References to one have an empty namespace.
    Revocation,
    HttpRouteGroup,
    /// Of SMI.
    TcpRoute,
    UdpRoute,
    /// Of the Gateway API, as the other routes below.
    HttpRoute,
    GrpcRoute,
    /// SMI has a kind of the same name: see [`Kind::word`].
    GatewayTcpRoute,
    ReferenceGrant,
    Service,
    Pod,
    /// References to one have an empty namespace.
    Namespace,
}

/// A kind that this version does not know.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("unknown kind {0:?}")]
pub struct UnknownKind(pub String);

impl Kind {
    pub const ALL: [Self; 18] = [
        Self::TrafficTarget,
        Self::TrafficSplit,
        Self::IdentityBinding,
        Self::TrafficPolicy,
        Self::CanaryRelease,
        Self::FaultExperiment,
        Self::ExternalService,
        Self::Revocation,
        Self::HttpRouteGroup,
        Self::TcpRoute,
        Self::UdpRoute,
        Self::HttpRoute,
        Self::GrpcRoute,
        Self::GatewayTcpRoute,
        Self::ReferenceGrant,
        Self::Service,
        Self::Pod,
        Self::Namespace,
    ];
    /// Those that users write for the mesh, as messages name them.
    pub const WRITTEN: [Self; 12] = [
        Self::TrafficTarget,
        Self::TrafficSplit,
        Self::HttpRouteGroup,
        Self::TcpRoute,
        Self::UdpRoute,
        Self::IdentityBinding,
        Self::TrafficPolicy,
        Self::ExternalService,
        Self::HttpRoute,
        Self::GrpcRoute,
        Self::GatewayTcpRoute,
        Self::ReferenceGrant,
    ];
    /// Routes of the Gateway API, in the order in which they decide about a port: the first kind
    /// of which there is one does.
    pub const GATEWAY_ROUTES: [Self; 3] = [Self::GrpcRoute, Self::HttpRoute, Self::GatewayTcpRoute];

    /// The kind as decisions and reports name it: as Kubernetes spells it, with the group where
    /// two kinds have one name.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::TrafficTarget => "TrafficTarget",
            Self::TrafficSplit => "TrafficSplit",
            Self::IdentityBinding => "IdentityBinding",
            Self::TrafficPolicy => "TrafficPolicy",
            Self::CanaryRelease => "CanaryRelease",
            Self::FaultExperiment => "FaultExperiment",
            Self::ExternalService => "ExternalService",
            Self::Revocation => "Revocation",
            Self::HttpRouteGroup => "HTTPRouteGroup",
            Self::TcpRoute => "TCPRoute",
            Self::UdpRoute => "UDPRoute",
            Self::HttpRoute => "HTTPRoute",
            Self::GrpcRoute => "GRPCRoute",
            Self::GatewayTcpRoute => "TCPRoute.gateway.networking.k8s.io",
            Self::ReferenceGrant => "ReferenceGrant",
            Self::Service => "Service",
            Self::Pod => "Pod",
            Self::Namespace => "Namespace",
        }
    }

    /// The kind as Kubernetes spells it, for messages and objects. Two kinds are called TCPRoute.
    #[must_use]
    pub const fn word(self) -> &'static str {
        match self {
            Self::GatewayTcpRoute => "TCPRoute",
            other => other.as_str(),
        }
    }

    /// The group of its API; empty for Kubernetes' own.
    #[must_use]
    pub const fn group(self) -> &'static str {
        match self {
            Self::TrafficTarget | Self::IdentityBinding => "access.smi-spec.io",
            Self::TrafficSplit => "split.smi-spec.io",
            Self::HttpRouteGroup | Self::TcpRoute | Self::UdpRoute => "specs.smi-spec.io",
            Self::TrafficPolicy
            | Self::CanaryRelease
            | Self::FaultExperiment
            | Self::ExternalService
            | Self::Revocation => "weft.dev",
            Self::HttpRoute | Self::GrpcRoute | Self::GatewayTcpRoute | Self::ReferenceGrant => {
                "gateway.networking.k8s.io"
            }
            Self::Service | Self::Pod | Self::Namespace => "",
        }
    }

    /// The kind that an object of this group and kind has.
    #[must_use]
    pub fn of(group: &str, word: &str) -> Option<Self> {
        Self::ALL
            .into_iter()
            .find(|kind| kind.word() == word && kind.group() == group)
    }
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl FromStr for Kind {
    type Err = UnknownKind;

    fn from_str(raw: &str) -> Result<Self, UnknownKind> {
        Self::ALL
            .into_iter()
            .find(|kind| kind.as_str() == raw)
            .ok_or_else(|| UnknownKind(raw.to_owned()))
    }
}

/// A Kubernetes object that a decision can be traced back to.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ObjectRef {
    pub kind: Kind,
    pub namespace: Arc<str>,
    pub name: Arc<str>,
}

impl ObjectRef {
    pub fn new(kind: Kind, namespace: impl Into<Arc<str>>, name: impl Into<Arc<str>>) -> Self {
        Self {
            kind,
            namespace: namespace.into(),
            name: name.into(),
        }
    }
}

/// `TrafficTarget shop/web`, and `Revocation leak` of what is in no namespace.
impl fmt::Display for ObjectRef {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &*self.namespace {
            "" => write!(f, "{} {}", self.kind, self.name),
            namespace => write!(f, "{} {namespace}/{}", self.kind, self.name),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn service_account_id_gives_its_parts_back() {
        let id = SpiffeId::of("cluster.local", "shop", "web").unwrap();
        assert_eq!(id.as_str(), "spiffe://cluster.local/ns/shop/sa/web");
        assert_eq!(id.trust_domain(), "cluster.local");
        assert_eq!(id.namespace(), Some("shop"));
        assert_eq!(id.service_account(), Some("web"));
        assert_eq!(SpiffeId::try_from(id.as_str()), Ok(id));
    }

    #[test]
    fn id_of_another_form_has_no_service_account() {
        for path in ["web", "ns/a", "ns/a/sa", "ns/a/sa/b/c", "sa/a/ns/b"] {
            let id = SpiffeId::try_from(format!("spiffe://td/{path}").as_str()).unwrap();
            assert_eq!(
                (id.namespace(), id.service_account()),
                (None, None),
                "{path}"
            );
            assert_eq!(id.trust_domain(), "td");
        }
    }

    #[test]
    fn only_the_strict_spelling_is_an_id() {
        use BadSpiffeId as Bad;
        let table = [
            ("", Bad::Scheme),
            ("SPIFFE://td/a", Bad::Scheme),
            ("https://td/a", Bad::Scheme),
            (" spiffe://td/a", Bad::Scheme),
            ("spiffe:///a", Bad::TrustDomain),
            ("spiffe://TD/a", Bad::TrustDomain),
            ("spiffe://td:443/a", Bad::TrustDomain),
            ("spiffe://u@td/a", Bad::TrustDomain),
            ("spiffe://td?x/a", Bad::TrustDomain),
            ("spiffe://td", Bad::NoPath),
            ("spiffe://td/", Bad::Segment),
            ("spiffe://td/a/", Bad::Segment),
            ("spiffe://td//a", Bad::Segment),
            ("spiffe://td/./a", Bad::Segment),
            ("spiffe://td/a/..", Bad::Segment),
            ("spiffe://td/%61", Bad::Segment),
            ("spiffe://td/a?b", Bad::Segment),
            ("spiffe://td/a#b", Bad::Segment),
            ("spiffe://td/a ", Bad::Segment),
            ("spiffe://td/ä", Bad::Segment),
            ("spiffe://td/a\0", Bad::Segment),
        ];
        for (raw, why) in table {
            assert_eq!(SpiffeId::try_from(raw), Err(why), "{raw:?}");
        }
        let long = format!("spiffe://{}/a", "d".repeat(256));
        assert_eq!(SpiffeId::try_from(long.as_str()), Err(Bad::TrustDomain));
        let long = format!("spiffe://td/{}", "a".repeat(2048));
        assert_eq!(SpiffeId::try_from(long.as_str()), Err(Bad::TooLong));
    }

    #[test]
    fn name_with_slash_cannot_impersonate_other_account() {
        assert_eq!(
            SpiffeId::of("td", "shop", "web/x"),
            Err(BadSpiffeId::Segment)
        );
        assert_eq!(
            SpiffeId::of("td", "shop/sa/web/..", "x"),
            Err(BadSpiffeId::Segment)
        );
        assert_eq!(SpiffeId::of("td", "", "x"), Err(BadSpiffeId::Segment));
        assert_eq!(
            SpiffeId::of("td/ns/shop", "a", "b").map(|id| id.namespace().is_some()),
            Ok(false)
        );
    }

    #[test]
    fn every_kind_is_read_as_it_is_written() {
        for kind in Kind::ALL {
            assert_eq!(kind.as_str().parse(), Ok(kind));
        }
        assert!("trafficTarget".parse::<Kind>().is_err());
    }

    #[test]
    fn kinds_of_one_name_differ_by_their_group() {
        for kind in Kind::ALL {
            assert_eq!(Kind::of(kind.group(), kind.word()), Some(kind));
        }
        assert_eq!(Kind::GatewayTcpRoute.word(), Kind::TcpRoute.word());
        assert_eq!("TCPRoute".parse(), Ok(Kind::TcpRoute));
        assert_eq!(Kind::of("specs.smi-spec.io", "HTTPRoute"), None);
    }

    #[test]
    fn references_read_as_people_write_them() {
        assert_eq!(ServiceId::new("shop", "web").to_string(), "shop/web");
        let target = ObjectRef::new(Kind::TrafficTarget, "shop", "web");
        assert_eq!(target.to_string(), "TrafficTarget shop/web");
    }
}
