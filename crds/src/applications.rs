//! Links to single lines of docs/applications.md, for messages of the controller and the commands.
//!
//! A line of a table has no anchor by itself, so that page has an explicit one for each linked
//! line, and for no other: a test in e2e/tests/walls compares the two.

/// A line of the page "What changes for applications".
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum ChangeLine {
    /// A strict workload refuses callers without an identity.
    OutsideToStrict,
    /// Calls to a pod's own address follow no split.
    PodAddress,
    /// A headless Service's client does not see which address cannot be connected to.
    HeadlessName,
    /// The proxy carries out liveness probes.
    LivenessByProxy,
    /// A bare Pod with probes cannot be applied again.
    BarePodProbes,
    /// A Guaranteed pod requests more, or is Burstable.
    GuaranteedPod,
    /// An autoscaler by CPU counts the proxy too.
    AutoscalerByCpu,
    /// What arrives over a second interface is refused.
    SecondInterface,
    /// Bytes that are no HTTP are reset on a port that is declared as HTTP.
    ForeignBytes,
    /// A port is declared as HTTP and as TLS.
    HttpAndTls,
    /// Calls below a limit of a Service are answered 429.
    BelowLimit,
}

impl ChangeLine {
    /// Where the line stands, as messages name it.
    #[must_use]
    pub const fn link(self) -> &'static str {
        match self {
            Self::OutsideToStrict => "docs/applications.md#outside-to-strict",
            Self::PodAddress => "docs/applications.md#pod-address",
            Self::HeadlessName => "docs/applications.md#headless-name",
            Self::LivenessByProxy => "docs/applications.md#liveness-by-proxy",
            Self::BarePodProbes => "docs/applications.md#bare-pod-probes",
            Self::GuaranteedPod => "docs/applications.md#guaranteed-pod",
            Self::AutoscalerByCpu => "docs/applications.md#autoscaler-by-cpu",
            Self::SecondInterface => "docs/applications.md#second-interface",
            Self::ForeignBytes => "docs/applications.md#foreign-bytes",
            Self::HttpAndTls => "docs/applications.md#http-and-tls",
            Self::BelowLimit => "docs/applications.md#below-limit",
        }
    }
}
