//! Merges the settings with which a pod is injected: those of the chart, of its namespace, of its
//! annotations, and the token of its lifecycle hooks.

use std::collections::BTreeMap;

use serde_json::Value;

use super::{Architectures, Refusal, Releases, guaranteed};
use crate::labels::{self, BadValue, quantity_in_milli};

/// Read once, checked, with defaults filled in.
#[derive(Clone, Debug)]
pub(super) struct Overrides {
    pub(super) skip_inbound_ports: String,
    pub(super) skip_outbound_ports: String,
    pub(super) skip_outbound_cidrs: String,
    pub(super) cpu_request: String,
    pub(super) memory_request: String,
    pub(super) cpu_limit: Option<String>,
    pub(super) memory_limit: Option<String>,
    pub(super) log_level: String,
    pub(super) access_log: String,
    /// Seconds; None when not set.
    pub(super) drain_delay: Option<u32>,
}

/// What an idle proxy uses, so that a namespace full of them still schedules.
pub(super) const CPU_REQUEST: &str = "10m";
pub(super) const MEMORY_REQUEST: &str = "20Mi";

impl Overrides {
    pub(super) fn read(
        pod: &Value,
        namespace: &Namespace,
        settings: &Settings,
    ) -> Result<Self, Refusal> {
        let read = OverrideReader { pod, namespace };
        let same = |text: &str| text.to_owned();
        let stays = read.value(labels::PROXY_GUARANTEED, labels::parse_inject)?;
        let is_guaranteed = stays.unwrap_or(true) && guaranteed::is_guaranteed(&pod["spec"]);
        let least = |amount| is_guaranteed.then_some(amount);
        let (cpu_request, cpu_limit) = read.amounts(
            [labels::PROXY_CPU_REQUEST, labels::PROXY_CPU_LIMIT],
            CPU_REQUEST,
            least(settings.guaranteed_cpu.as_str()),
        )?;
        let (memory_request, memory_limit) = read.amounts(
            [labels::PROXY_MEMORY_REQUEST, labels::PROXY_MEMORY_LIMIT],
            MEMORY_REQUEST,
            least(settings.guaranteed_memory.as_str()),
        )?;
        Ok(Self {
            skip_inbound_ports: read
                .value(labels::SKIP_INBOUND_PORTS, |text| {
                    labels::parse_ports(text).map(|_| same(text))
                })?
                .unwrap_or_default(),
            skip_outbound_ports: read
                .value(labels::SKIP_OUTBOUND_PORTS, |text| {
                    labels::parse_ports(text).map(|_| same(text))
                })?
                .unwrap_or_default(),
            skip_outbound_cidrs: read
                .value(labels::SKIP_OUTBOUND_CIDRS, |text| {
                    labels::parse_cidrs(text).map(|_| same(text))
                })?
                .unwrap_or_default(),
            cpu_request,
            memory_request,
            cpu_limit,
            memory_limit,
            log_level: read
                .value(labels::LOG_LEVEL, |text| {
                    labels::parse_log_level(text).map(same)
                })?
                .unwrap_or_else(|| "info".to_owned()),
            access_log: read
                .value(labels::ACCESS_LOG, |text| {
                    labels::parse_access_log(text).map(same)
                })?
                .unwrap_or_else(|| "off".to_owned()),
            drain_delay: read.value(labels::DRAIN_DELAY, labels::parse_drain_delay)?,
        })
    }

    /// With the installation's limits where no annotation names one.
    pub(super) fn limited(mut self, defaults: &DefaultLimits) -> Self {
        self.cpu_limit = limited(self.cpu_limit, defaults.cpu.as_deref(), &self.cpu_request);
        self.memory_limit = limited(
            self.memory_limit,
            defaults.memory.as_deref(),
            &self.memory_request,
        );
        self
    }

    /// Annotation names of the skip lists, with what applies to this pod.
    pub(super) fn skip_lists(&self) -> [(&'static str, &str); 3] {
        [
            (labels::SKIP_INBOUND_PORTS, &self.skip_inbound_ports),
            (labels::SKIP_OUTBOUND_PORTS, &self.skip_outbound_ports),
            (labels::SKIP_OUTBOUND_CIDRS, &self.skip_outbound_cidrs),
        ]
    }
}

/// The limit that is named, or the default one, which is never below the request.
pub(super) fn limited(
    named: Option<String>,
    default: Option<&str>,
    request: &str,
) -> Option<String> {
    named.or_else(|| {
        let default = default?;
        let is_below = quantity_in_milli(default) < quantity_in_milli(request);
        Some(if is_below { request } else { default }.to_owned())
    })
}

struct OverrideReader<'a> {
    pod: &'a Value,
    namespace: &'a Namespace,
}

impl OverrideReader<'_> {
    /// Request and limit of a resource, by the annotations of these names. They are one
    /// amount, `least` where no annotation requests more, in a pod that is Guaranteed.
    fn amounts(
        &self,
        [request, limit]: [&str; 2],
        default: &str,
        least: Option<&str>,
    ) -> Result<(String, Option<String>), Refusal> {
        let quantity =
            |name| self.value(name, |text| labels::parse_quantity(text).map(str::to_owned));
        let (request, limit) = (quantity(request)?, quantity(limit)?);
        let Some(least) = least else {
            return Ok((request.unwrap_or_else(|| default.to_owned()), limit));
        };
        let both = limit.unwrap_or_else(|| match request {
            Some(request) if quantity_in_milli(&request) > quantity_in_milli(least) => request,
            _ => least.to_owned(),
        });
        Ok((both.clone(), Some(both)))
    }

    /// The pod's annotation, else the namespace's, checked by `parse`.
    fn value<T>(
        &self,
        name: &str,
        parse: impl Fn(&str) -> Result<T, BadValue>,
    ) -> Result<Option<T>, Refusal> {
        let own = self
            .pod
            .pointer("/metadata/annotations")
            .and_then(|all| all.get(name));
        let (text, field) = match own {
            Some(text) => (
                text.as_str().unwrap_or_default(),
                format!("metadata.annotations[{name}]"),
            ),
            None => match self.namespace.annotations.get(name) {
                Some(text) => (
                    text.as_str(),
                    format!("annotation {name} of namespace {}", self.namespace.name),
                ),
                None => return Ok(None),
            },
        };
        parse(text)
            .map(Some)
            .map_err(|reason| Refusal::BadValue { field, reason })
    }
}

/// What an installation of Weft puts into every proxy.
#[derive(Clone, Debug)]
pub struct Settings {
    /// Image of the proxy.
    pub proxy_image: String,
    /// `Always`, `IfNotPresent` or `Never`.
    pub proxy_pull_policy: String,
    /// Processors that this image is built for.
    pub architectures: Architectures,
    /// Host and port of the controller.
    pub controller_address: String,
    /// Namespace of the controller.
    pub controller_namespace: String,
    /// Trust domain of all identities.
    pub trust_domain: String,
    /// Version of the proxy.
    pub version: String,
    /// Other meshes whose names the proxy's series get too, `linkerd,osm`; empty
    /// for none, and then the pod's workload is not written down either.
    pub compatibility_series: String,
    /// CPU that the proxy requests, and may use, in a pod that is Guaranteed.
    pub guaranteed_cpu: String,
    /// The same of memory.
    pub guaranteed_memory: String,
    /// Limits of the proxy's containers where neither pod nor namespace names one.
    pub limits: DefaultLimits,
    /// What redirects the pod's traffic.
    pub capture: CaptureMode,
}

/// What writes the rules that redirect a pod's traffic.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum CaptureMode {
    /// The pod's init container, with uid 0 and `NET_ADMIN`.
    #[default]
    Init,
    /// The agent of the pod's node. The init container waits for it, without a privilege.
    Node,
}

/// Value of `capture.mode` in the chart that has no such meaning.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NoCaptureMode;

impl std::fmt::Display for NoCaptureMode {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("must be init or node")
    }
}

impl std::str::FromStr for CaptureMode {
    type Err = NoCaptureMode;

    fn from_str(text: &str) -> Result<Self, NoCaptureMode> {
        match text {
            "init" => Ok(Self::Init),
            "node" => Ok(Self::Node),
            _ => Err(NoCaptureMode),
        }
    }
}

impl Settings {
    /// `guaranteed_cpu` where an installation names none. The request of other pods' proxies
    /// would hold up calls if it were a limit.
    pub const GUARANTEED_CPU: &str = "200m";
    /// `guaranteed_memory` where an installation names none: twice what the bounds of a
    /// proxy are made for.
    pub const GUARANTEED_MEMORY: &str = "128Mi";
}

/// Limits that an installation gives proxies; none by default.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct DefaultLimits {
    /// Of CPU.
    pub cpu: Option<String>,
    /// Of memory.
    pub memory: Option<String>,
}

/// What matters of the pod's namespace.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Namespace {
    /// Its name.
    pub name: String,
    /// Its labels.
    pub labels: BTreeMap<String, String>,
    /// Its annotations: defaults for the pod's.
    pub annotations: BTreeMap<String, String>,
    /// The releases in it.
    pub releases: Releases,
}

/// A secret part of the path under which a pod's lifecycle hooks are called, because
/// any client that could guess it could run them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct HookToken(pub [u8; 16]);

impl std::fmt::Display for HookToken {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}
