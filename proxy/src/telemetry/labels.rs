//! The labels of metric series.
//!
//! Labels are closed sets or names of cluster objects; a path, header, address or error
//! text never becomes one.

use std::fmt::{self, Debug};
use std::hash::Hash;
use std::sync::Arc;

use prometheus_client::encoding::{EncodeLabelKey, EncodeLabelSet, EncodeLabelValue};
use prometheus_client::encoding::{LabelSetEncoder, LabelValueEncoder};

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, EncodeLabelValue)]
#[expect(
    non_camel_case_types,
    reason = "the derive makes label values from the names"
)]
pub enum Direction {
    inbound,
    outbound,
}

/// What protects the connection of a call.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, EncodeLabelValue)]
#[expect(
    non_camel_case_types,
    reason = "the derive makes label values from the names"
)]
pub enum Security {
    mtls,
    plaintext,
    /// There is none: no endpoint was chosen for the call.
    none,
}

impl Security {
    #[must_use]
    pub const fn of(meshed: bool) -> Self {
        if meshed { Self::mtls } else { Self::plaintext }
    }
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct RequestLabels {
    pub direction: Direction,
    /// Outbound: `namespace/name` of the Service called. Inbound: empty.
    pub service: Arc<str>,
    pub port: Port,
    /// Outbound: Service that a split chose, else the Service itself.
    pub backend: Arc<str>,
    /// Outbound: pod that answered. Inbound: `namespace/service-account` of the caller.
    pub peer: Arc<str>,
    pub security: Security,
    /// HTTP status, 0 when none was received.
    pub status: u16,
    pub success: bool,
    /// Why the mesh answered itself; empty when the application answered.
    pub reason: &'static str,
    #[prometheus(flatten)]
    pub route: RouteLabel,
}

/// The same before there was an answer.
#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct CancelledLabels {
    pub direction: Direction,
    pub service: Arc<str>,
    pub port: Port,
    pub backend: Arc<str>,
    pub peer: Arc<str>,
    pub security: Security,
    #[prometheus(flatten)]
    pub route: RouteLabel,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct AttemptLabels {
    pub service: Arc<str>,
    pub backend: Arc<str>,
    pub success: bool,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct RetryLabels {
    pub service: Arc<str>,
    pub backend: Arc<str>,
    pub outcome: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct ContextLabels {
    /// How it was known what a call is made for: `context`, `trace`, `over` or `none`.
    pub how: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct OverrideLabels {
    /// `granted`, or why an override was ignored.
    pub outcome: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct RateLimitedLabels {
    /// `namespace/name` of the TrafficPolicy.
    pub policy: Arc<str>,
    pub limit: Arc<str>,
    /// `Enforce`, or `Audit`: it was let through.
    pub mode: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct ShadowLabels {
    /// `namespace/service-account` of the peer that reports it.
    pub peer: Arc<str>,
    /// `copy`: it is one or made for one; `perhaps`: it may be made for one.
    pub said: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct ShedLabels {
    /// Of the container.
    pub port: Port,
    /// The class that the request counted as.
    pub priority: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct ThrottledLabels {
    pub backend: Arc<str>,
    /// The class that the request counts as.
    pub priority: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct OverloadLabels {
    /// Of the container.
    pub port: Port,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct SpanLabels {
    /// `exported` or `dropped`.
    pub outcome: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct TelemetryDroppedLabels {
    /// `spans` or `logs`.
    pub signal: &'static str,
    /// Why: `rate`, `queue`, `failed`, `rejected` or `off`.
    pub reason: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct EjectionLabels {
    pub service: Arc<str>,
    pub backend: Arc<str>,
    pub cause: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct BreakerLabels {
    /// `namespace/name` of the Service whose policy decides.
    pub service: Arc<str>,
    pub backend: Arc<str>,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct LocalityLabels {
    pub service: Arc<str>,
    /// `same-node`, `same-zone` or `elsewhere`.
    pub locality: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct FallbackLabels {
    pub service: Arc<str>,
    /// `namespace/name` of the Service that was tried, or `response`.
    pub fallback: Arc<str>,
    /// As in the policy.
    pub when: &'static str,
    pub outcome: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct FaultLabels {
    /// `namespace/name` of the FaultExperiment.
    pub experiment: Arc<str>,
    /// `delay`, `abort`, `refuse` or `reset`.
    pub effect: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct MirrorLabels {
    pub service: Arc<str>,
    /// `namespace/name` of the Service that the copy was for.
    pub mirror: Arc<str>,
    pub outcome: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct LatencyLabels {
    pub direction: Direction,
    pub service: Arc<str>,
    pub port: Port,
    pub backend: Arc<str>,
    #[prometheus(flatten)]
    pub route: RouteLabel,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct ConnectionLabels {
    pub direction: Direction,
    /// `http1`, `http2` or `opaque`.
    pub protocol: &'static str,
    pub security: Security,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct TcpLabels {
    pub direction: Direction,
    pub service: Arc<str>,
    pub port: Port,
    pub backend: Arc<str>,
    pub peer: Arc<str>,
    pub security: Security,
    /// Empty when the connection was served.
    pub reason: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct ByteLabels {
    pub direction: Direction,
    /// `sent` from the caller, `received` by the caller.
    pub flow: &'static str,
    pub security: Security,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct AuditLabels {
    pub direction: Direction,
    pub peer: Arc<str>,
    pub port: Port,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct TlsLabels {
    pub direction: Direction,
    /// What was wrong with the peer's certificate, as `IdentityError::label` names it;
    /// else `timeout`, or `handshake` when there was no handshake.
    pub reason: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct LimitLabels {
    /// Name of the bound that was reached.
    pub limit: &'static str,
}

/// The route of the own workload that describes a request, as label `route`. Without one there is
/// no such label: queries see it as empty all the same, and series of a pod without routes stay
/// as they are.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct RouteLabel(pub Arc<str>);

impl EncodeLabelSet for RouteLabel {
    fn encode(&self, encoder: &mut LabelSetEncoder<'_>) -> Result<(), std::fmt::Error> {
        if self.0.is_empty() {
            return Ok(());
        }
        let mut label = encoder.encode_label();
        let mut key = label.encode_label_key()?;
        EncodeLabelKey::encode(&"route", &mut key)?;
        let mut value = key.encode_label_value()?;
        EncodeLabelValue::encode(&self.0, &mut value)?;
        value.finish()
    }
}

/// A port as a label.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Port {
    Number(u16),
    /// Neither declared nor ever served.
    Other,
}

impl Port {
    /// The number, 0 where none is kept.
    #[must_use]
    pub const fn number(self) -> u16 {
        match self {
            Self::Number(number) => number,
            Self::Other => 0,
        }
    }
}

/// As the page writes them.
impl fmt::Display for LatencyLabels {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let direction = match self.direction {
            Direction::inbound => "inbound",
            Direction::outbound => "outbound",
        };
        let service = &self.service;
        write!(f, "direction=\"{direction}\",service=\"{service}\",port=\"")?;
        match self.port {
            Port::Number(number) => write!(f, "{number}")?,
            Port::Other => f.write_str("other")?,
        }
        write!(f, "\",backend=\"{}\"", self.backend)
    }
}

impl EncodeLabelValue for Port {
    fn encode(&self, encoder: &mut LabelValueEncoder<'_>) -> Result<(), std::fmt::Error> {
        match self {
            Self::Number(number) => EncodeLabelValue::encode(number, encoder),
            Self::Other => EncodeLabelValue::encode(&"other", encoder),
        }
    }
}
