//! Parses object names as users type them for kubectl: `deploy/web`, `svc/cart:8080`, `sa/web`.
//!
//! Claims: observe-43

use std::fmt;

use crds::smi::{SPLIT_GROUP, STORAGE_VERSION};
use crds::weft;

use super::nearest::{hint, nearest};
use crate::failure::Failure;

/// The kinds by which the graph counts calls and the API server knows objects, and then these:
/// `stat`, `tap` and whatever takes an end of an edge differ in nothing else.
macro_rules! counted_kinds {
    ($($more:ident),+) => {
        &[
            ResourceKind::Deployment,
            ResourceKind::StatefulSet,
            ResourceKind::DaemonSet,
            ResourceKind::Job,
            ResourceKind::CronJob,
            ResourceKind::Rollout,
            ResourceKind::ReplicaSet,
            ResourceKind::ReplicationController,
            ResourceKind::Pod,
            ResourceKind::Service,
            ResourceKind::Namespace,
            $(ResourceKind::$more),+
        ]
    };
}

pub(crate) use counted_kinds;

/// A kind that commands know.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) enum ResourceKind {
    /// weft.dev
    CanaryRelease,
    /// batch/v1
    CronJob,
    /// apps/v1
    DaemonSet,
    /// apps/v1
    Deployment,
    /// weft.dev
    FaultExperiment,
    /// gateway.networking.k8s.io
    Gateway,
    /// batch/v1
    Job,
    /// v1
    Namespace,
    /// v1
    Pod,
    /// apps/v1
    ReplicaSet,
    /// v1
    ReplicationController,
    /// argoproj.io
    Rollout,
    /// v1
    Service,
    /// v1
    ServiceAccount,
    /// apps/v1
    StatefulSet,
    /// split.smi-spec.io
    TrafficSplit,
    /// A host or an address outside the mesh.
    External,
}

impl ResourceKind {
    const ALL: [(Self, &'static str, &'static [&'static str]); 17] = [
        (
            Self::CanaryRelease,
            "CanaryRelease",
            &["crel", "canaryrelease", "canaryreleases"],
        ),
        (Self::CronJob, "CronJob", &["cj", "cronjob", "cronjobs"]),
        (
            Self::DaemonSet,
            "DaemonSet",
            &["ds", "daemonset", "daemonsets"],
        ),
        (
            Self::Deployment,
            "Deployment",
            &["deploy", "deployment", "deployments"],
        ),
        (
            Self::FaultExperiment,
            "FaultExperiment",
            &["fexp", "faultexperiment", "faultexperiments"],
        ),
        (Self::Gateway, "Gateway", &["gateway", "gtw", "gateways"]),
        (Self::Job, "Job", &["job", "jobs"]),
        (
            Self::Namespace,
            "Namespace",
            &["ns", "namespace", "namespaces"],
        ),
        (Self::Pod, "Pod", &["po", "pod", "pods"]),
        (
            Self::ReplicaSet,
            "ReplicaSet",
            &["rs", "replicaset", "replicasets"],
        ),
        (
            Self::ReplicationController,
            "ReplicationController",
            &["rc", "replicationcontroller", "replicationcontrollers"],
        ),
        (Self::Rollout, "Rollout", &["ro", "rollout", "rollouts"]),
        (Self::Service, "Service", &["svc", "service", "services"]),
        (
            Self::ServiceAccount,
            "ServiceAccount",
            &["sa", "serviceaccount", "serviceaccounts"],
        ),
        (
            Self::StatefulSet,
            "StatefulSet",
            &["sts", "statefulset", "statefulsets"],
        ),
        (
            Self::TrafficSplit,
            "TrafficSplit",
            &["ts", "trafficsplit", "trafficsplits"],
        ),
        (Self::External, "External", &["external"]),
    ];

    /// As objects write it.
    #[must_use]
    pub(crate) fn as_str(self) -> &'static str {
        let mut all = Self::ALL.iter();
        all.find(|(kind, ..)| *kind == self)
            .map_or("", |(_, name, _)| name)
    }

    /// The kind that objects write so.
    #[must_use]
    pub(crate) fn named(text: &str) -> Option<Self> {
        let mut all = Self::ALL.iter();
        all.find(|(_, name, _)| *name == text)
            .map(|(kind, ..)| *kind)
    }

    /// As it is typed with the fewest letters.
    #[must_use]
    pub(crate) fn short(self) -> &'static str {
        self.typed().first().copied().unwrap_or_default()
    }

    /// Path of its objects at the API server, in one namespace or in all; none of what is no
    /// object.
    #[must_use]
    pub(crate) fn path(self, namespace: Option<&str>) -> Option<String> {
        let group = match self {
            Self::DaemonSet | Self::Deployment | Self::ReplicaSet | Self::StatefulSet => {
                "apis/apps/v1".to_owned()
            }
            Self::CronJob | Self::Job => "apis/batch/v1".to_owned(),
            Self::Rollout => "apis/argoproj.io/v1alpha1".to_owned(),
            Self::Namespace
            | Self::Pod
            | Self::ReplicationController
            | Self::Service
            | Self::ServiceAccount => "api/v1".to_owned(),
            Self::TrafficSplit => format!("apis/{SPLIT_GROUP}/{STORAGE_VERSION}"),
            Self::CanaryRelease | Self::FaultExperiment => {
                format!("apis/{}/{}", weft::GROUP, weft::VERSION)
            }
            Self::Gateway => format!("apis/{}/v1", gateway_api::GROUP),
            Self::External => return None,
        };
        let scope = namespace
            .filter(|_| self != Self::Namespace)
            .map_or_else(String::new, |name| format!("namespaces/{name}/"));
        let plural = self.typed().last().copied().unwrap_or_default();
        Some(format!("/{group}/{scope}{plural}"))
    }

    /// All that is read as it: the short name first, and last the plural.
    #[must_use]
    pub(crate) fn typed(self) -> &'static [&'static str] {
        let mut all = Self::ALL.iter();
        all.find(|(kind, ..)| *kind == self)
            .map_or(&[][..], |(.., names)| *names)
    }
}

impl fmt::Display for ResourceKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// `KIND[/NAME[:PORT]]`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Named {
    /// The kind.
    pub(crate) kind: ResourceKind,
    /// One object of it; all without it.
    pub(crate) name: Option<String>,
    /// A port of the object.
    pub(crate) port: Option<u16>,
}

impl Named {
    /// Reads `deploy`, `deploy/web` or `svc/cart:8080`, of one of these kinds.
    ///
    /// # Errors
    /// When it is none of them, with the allowed ones.
    pub(crate) fn read(text: &str, allowed: &[ResourceKind]) -> Result<Self, Failure> {
        let (kind, name) = match text.split_once('/') {
            Some((kind, name)) => (kind, Some(name)),
            None => (text, None),
        };
        let lower = kind.to_ascii_lowercase();
        let found = ResourceKind::ALL
            .iter()
            .find(|(kind, _, names)| allowed.contains(kind) && names.contains(&lower.as_str()));
        let Some((kind, ..)) = found else {
            return Err(no_kind(text, &lower, allowed));
        };
        let bad = |why: &str| Failure::usage(format!("{text:?}: {why}"));
        let (name, port) = match name.map(|name| split_port(name, *kind)) {
            None => (None, None),
            Some((name, port)) => {
                let port = port.map(|port| match port.parse() {
                    Ok(port) if port > 0 => Ok(port),
                    _ => Err(bad("the port must be a number from 1 to 65535")),
                });
                (Some(name), port.transpose()?)
            }
        };
        if let Some(name) = name
            && !is_name_of(*kind, name)
        {
            return Err(bad("this is no name of an object"));
        }
        Ok(Self {
            kind: *kind,
            name: name.map(ToOwned::to_owned),
            port,
        })
    }

    /// The same for exactly one object.
    ///
    /// # Errors
    /// When there is no name.
    pub(crate) fn read_one(
        text: &str,
        allowed: &[ResourceKind],
    ) -> Result<(Self, String), Failure> {
        let named = Self::read(text, allowed)?;
        match named.name.clone() {
            Some(name) => Ok((named, name)),
            None => Err(Failure::usage(format!("say which one: {text}/NAME"))),
        }
    }

    /// The name of one object of this kind, which is typed alone or as `KIND/NAME`, without a port,
    /// for the reason `why`.
    ///
    /// # Errors
    /// When it is of another kind, has no name, or has a port.
    pub(crate) fn read_of(text: &str, kind: ResourceKind, why: &str) -> Result<String, Failure> {
        let typed = match text.contains('/') {
            true => text.to_owned(),
            false => format!("{}/{text}", kind.as_str().to_ascii_lowercase()),
        };
        let (named, name) = Self::read_one(&typed, &[kind])?;
        named.without_port(text, why)?;
        Ok(name)
    }

    /// The same without a port, which would be ignored for the reason `why`.
    ///
    /// # Errors
    /// When there is a port.
    pub(crate) fn without_port(self, text: &str, why: &str) -> Result<Self, Failure> {
        match self.port {
            None => Ok(self),
            Some(_) => Err(Failure::usage(format!(
                "{text:?}: {why}; leave the port out"
            ))),
        }
    }
}

/// With the kind that was misspelt, or else with the allowed ones: a kind that has no place here is
/// no typing error.
fn no_kind(text: &str, kind: &str, allowed: &[ResourceKind]) -> Failure {
    let what = format!("{text:?} names no kind that can be asked about here");
    let all = ResourceKind::ALL.iter();
    let known = all.clone().any(|(.., names)| names.contains(&kind));
    let may_be_said = all.filter(|(kind, ..)| allowed.contains(kind));
    let typed = may_be_said.flat_map(|(.., names)| names.iter().copied());
    if let Some(meant) = nearest(kind, typed).filter(|_| !known) {
        let rest = &text[kind.len()..];
        let hint = hint(Some(format!("{meant}{rest}")));
        return Failure::usage(format!("{what}{hint}"));
    }
    let names: Vec<&str> = allowed.iter().map(|kind| kind.short()).collect();
    Failure::usage(format!(
        "{what}; say one of {}, such as {}/NAME",
        names.join(", "),
        names.first().copied().unwrap_or("deploy"),
    ))
}

/// Calls that an ExternalService gives are counted under its namespace and name.
fn is_name_of(kind: ResourceKind, text: &str) -> bool {
    match text.split_once('/') {
        Some((namespace, name)) => {
            kind == ResourceKind::External && is_name(namespace) && is_name(name)
        }
        None => is_name(text),
    }
}

fn is_name(text: &str) -> bool {
    // With a dot first a part of a path would be another one.
    (1..=253).contains(&text.len()) && !text.starts_with('.') && text.bytes().all(is_of_a_name)
}

fn is_of_a_name(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || [b'-', b'.', b':', b'[', b']'].contains(&byte)
}

/// An address of six parts has colons of its own.
fn split_port(name: &str, kind: ResourceKind) -> (&str, Option<&str>) {
    let several = name.matches(':').count() > 1 && !name.starts_with('[');
    match name.rsplit_once(':') {
        Some((name, port)) if !(kind == ResourceKind::External && several) => (name, Some(port)),
        _ => (name, None),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const KINDS: &[ResourceKind] = &[
        ResourceKind::Deployment,
        ResourceKind::Service,
        ResourceKind::External,
    ];

    #[test]
    fn names_are_read_as_kubectl_reads_them() {
        let read = |text: &str| {
            let named = Named::read(text, KINDS).unwrap();
            (named.kind, named.name, named.port)
        };
        let name = |text: &str| Some(text.to_owned());
        assert_eq!(read("deploy"), (ResourceKind::Deployment, None, None));
        assert_eq!(
            read("Deployments/web"),
            (ResourceKind::Deployment, name("web"), None)
        );
        assert_eq!(
            read("svc/cart:8080"),
            (ResourceKind::Service, name("cart"), Some(8080))
        );
        assert_eq!(
            read("external/api.example:443"),
            (ResourceKind::External, name("api.example"), Some(443))
        );
        assert_eq!(
            read("external/fd00::1"),
            (ResourceKind::External, name("fd00::1"), None)
        );
        assert_eq!(
            read("external/[fd00::1]:53"),
            (ResourceKind::External, name("[fd00::1]"), Some(53))
        );
        assert_eq!(
            read("external/shop/payments:443"),
            (ResourceKind::External, name("shop/payments"), Some(443))
        );
    }

    #[test]
    fn invalid_object_name_is_usage_error_listing_forms() {
        for (text, expected) in [
            ("pod/web", "deploy, svc, external"),
            ("", "names no kind"),
            ("svc/cart:http", "1 to 65535"),
            ("svc/cart:0", "1 to 65535"),
            ("svc/", "no name"),
            ("svc/a/b", "no name"),
            ("svc/../secrets", "no name"),
            ("svc/..", "no name"),
            ("svc/.", "no name"),
            ("svc/..:80", "no name"),
            ("svc/a?watch=1", "no name"),
            ("external/../a", "no name"),
            ("external/a/b/c", "no name"),
        ] {
            let Err(Failure::Usage(words)) = Named::read(text, KINDS) else {
                panic!("{text}");
            };
            assert!(words.contains(expected), "{text}: {words}");
        }
        assert!(Named::read_one("svc", KINDS).is_err());
    }

    #[test]
    fn port_that_would_be_passed_over_is_refused() {
        let read = |text: &str| {
            let named = Named::read(text, KINDS).unwrap();
            named.without_port(text, "a caller has no port")
        };
        assert!(read("deploy/web").is_ok());
        let Err(Failure::Usage(words)) = read("deploy/web:80") else {
            panic!("a port");
        };
        assert_eq!(
            words,
            "\"deploy/web:80\": a caller has no port; leave the port out"
        );
    }

    #[test]
    fn misspelt_kind_error_suggests_nearest_kind() {
        for (text, meant) in [
            ("deplyo/web", "you may mean deploy/web"),
            ("servcie/cart:80", "you may mean service/cart:80"),
            ("SVCS", "you may mean svc"),
        ] {
            let Err(Failure::Usage(words)) = Named::read(text, KINDS) else {
                panic!("{text}");
            };
            assert!(words.ends_with(meant), "{text}: {words}");
        }
        // Known, and not for this command: nothing is misspelt.
        let Err(Failure::Usage(words)) = Named::read("ns/shop", &[ResourceKind::DaemonSet]) else {
            panic!("a kind that has no place here");
        };
        assert!(words.contains("say one of ds"), "{words}");
    }

    #[test]
    fn paths_are_those_of_the_api_server() {
        let path = |kind: ResourceKind, namespace| kind.path(namespace).unwrap_or_default();
        let shop = Some("shop");
        assert_eq!(
            path(ResourceKind::Deployment, shop),
            "/apis/apps/v1/namespaces/shop/deployments"
        );
        assert_eq!(path(ResourceKind::Pod, None), "/api/v1/pods");
        assert_eq!(
            path(ResourceKind::CronJob, shop),
            "/apis/batch/v1/namespaces/shop/cronjobs"
        );
        assert_eq!(
            path(ResourceKind::Rollout, None),
            "/apis/argoproj.io/v1alpha1/rollouts"
        );
        assert_eq!(path(ResourceKind::Namespace, shop), "/api/v1/namespaces");
        assert_eq!(
            path(ResourceKind::TrafficSplit, shop),
            "/apis/split.smi-spec.io/v1alpha4/namespaces/shop/trafficsplits"
        );
        assert_eq!(path(ResourceKind::External, shop), "");
    }
}
