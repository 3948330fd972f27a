//! The table of the kinds that users write: SMI kinds, those of group `weft.dev`, and those of the
//! Gateway API that Weft reads and does not install.

use crds::convert::{SmiKind, SmiVersion};
use crds::weft;
use gateway_api::findings;
use policy::name::Kind;

/// The kind of group `weft.dev` whose only object the controller makes.
pub(crate) const AUTHORITY: &str = "CertificateAuthority";

/// The kind of group `weft.dev` that users write, and that is in no namespace.
pub(crate) const REVOCATION: &str = "Revocation";

/// Name of the CustomResourceDefinition of [`AUTHORITY`].
pub(crate) fn authority_definition() -> String {
    format!("{}.{}", weft::CERTIFICATE_AUTHORITIES, weft::GROUP)
}

/// Name of the CustomResourceDefinition of [`REVOCATION`].
pub(crate) fn revocation_definition() -> String {
    format!("{}.{}", weft::REVOCATIONS, weft::GROUP)
}

/// One kind, in the version in which it is stored.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct UserKind {
    /// As objects write it.
    pub(crate) kind: &'static str,
    /// As decisions know it.
    pub(crate) known: Kind,
    pub(crate) plural: &'static str,
    pub(crate) group: &'static str,
    pub(crate) version: &'static str,
    /// As kubectl knows it with the fewest letters.
    pub(crate) short: &'static str,
}

impl UserKind {
    /// Path of all its objects at the API server.
    pub(crate) fn path(&self) -> String {
        format!("/apis/{}/{}/{}", self.group, self.version, self.plural)
    }

    /// Path of those of a namespace.
    pub(crate) fn collection(&self, namespace: &str) -> String {
        let Self {
            group,
            version,
            plural,
            ..
        } = self;
        format!("/apis/{group}/{version}/namespaces/{namespace}/{plural}")
    }

    /// The same of every version in which the cluster may serve the kind.
    pub(crate) fn collections(&self, namespace: &str) -> Vec<String> {
        let versions = match self.group == gateway_api::GROUP {
            true => self.versions(),
            false => vec![self.version],
        };
        let of = |version| {
            let other = Self {
                version,
                ..self.clone()
            };
            other.collection(namespace)
        };
        versions.into_iter().map(of).collect()
    }

    /// Versions in which objects may be written, the newest first.
    pub(crate) fn versions(&self) -> Vec<&'static str> {
        match SmiKind::named(self.group, self.kind) {
            Some(kind) => kind.versions().iter().rev().map(|one| one.name()).collect(),
            None if self.group == gateway_api::GROUP => findings::versions(self.known).to_vec(),
            None => vec![self.version],
        }
    }

    /// Name of its CustomResourceDefinition.
    pub(crate) fn definition(&self) -> String {
        format!("{}.{}", self.plural, self.group)
    }
}

/// The kinds of a group, as objects write them.
pub(crate) fn of_group(group: &str) -> Vec<&'static str> {
    let own = all().into_iter().filter(|one| one.group == group);
    own.map(|one| one.kind).collect()
}

/// Those of the Gateway API, in their newest version.
pub(crate) fn of_gateway_api() -> Vec<UserKind> {
    let kinds = [
        (Kind::HttpRoute, "httproutes", "httproute"),
        (Kind::GrpcRoute, "grpcroutes", "grpcroute"),
        (
            Kind::GatewayTcpRoute,
            "tcproutes",
            "tcproutes.gateway.networking.k8s.io",
        ),
        (Kind::ReferenceGrant, "referencegrants", "refgrant"),
    ];
    Vec::from(kinds.map(|(known, plural, short)| UserKind {
        kind: known.word(),
        known,
        plural,
        group: gateway_api::GROUP,
        version: findings::versions(known)[0],
        short,
    }))
}

/// All that the mesh installs: SMI's and Weft's own.
pub(crate) fn all() -> Vec<UserKind> {
    let smi = SmiKind::ALL.into_iter().map(|kind| UserKind {
        kind: kind.name(),
        known: kind.kind(),
        plural: kind.plural(),
        group: kind.group(),
        version: SmiVersion::STORAGE.name(),
        short: match kind {
            SmiKind::TrafficTarget => "tt",
            SmiKind::IdentityBinding => "ib",
            SmiKind::HttpRouteGroup => "htr",
            SmiKind::TcpRoute => "tr",
            SmiKind::UdpRoute => "ur",
            SmiKind::TrafficSplit => "ts",
        },
    });
    let own = [
        (Kind::TrafficPolicy, weft::TRAFFIC_POLICIES, "tp"),
        (Kind::CanaryRelease, weft::CANARY_RELEASES, "crel"),
        (Kind::FaultExperiment, weft::FAULT_EXPERIMENTS, "fexp"),
        (Kind::ExternalService, weft::EXTERNAL_SERVICES, "xs"),
    ];
    let own = own.map(|(known, plural, short)| UserKind {
        kind: known.as_str(),
        known,
        plural,
        group: weft::GROUP,
        version: weft::VERSION,
        short,
    });
    smi.chain(own).collect()
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn they_are_the_kinds_that_the_chart_installs() {
        let installed = crds::smi::definitions("weft-system").into_iter();
        let installed = installed.chain(weft::definitions());
        let installed: BTreeSet<String> = installed
            .map(|(_, definition)| {
                let name = definition["metadata"]["name"].as_str();
                name.unwrap_or_default().to_owned()
            })
            .collect();
        let known: BTreeSet<String> = all().iter().map(UserKind::definition).collect();
        assert_eq!(known, installed);
    }

    #[test]
    fn short_names_and_versions_match_installed_definitions() {
        let installed = crds::smi::definitions("weft-system").into_iter();
        let installed = installed.chain(weft::definitions());
        let mut compared = 0;
        for (_, definition) in installed {
            let spec = &definition["spec"];
            let names = &spec["names"];
            let mut known = all().into_iter();
            let known =
                known.find(|known| spec["group"] == known.group && names["kind"] == known.kind);
            let known = known.unwrap();
            let short = &names["shortNames"];
            assert_eq!(*short, serde_json::json!([known.short]), "{known:?}");
            let versions = spec["versions"].as_array().unwrap().iter();
            let served: BTreeSet<&str> = versions
                .filter_map(|version| version["name"].as_str())
                .collect();
            let written: BTreeSet<&str> = known.versions().into_iter().collect();
            assert_eq!(written, served, "{known:?}");
            assert_eq!(known.versions()[0], known.version, "the newest is stored");
            compared += 1;
        }
        assert_eq!(compared, all().len());
    }
}
