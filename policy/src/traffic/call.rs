//! The sections that belong to the Service that a client calls: time limits, retries, fallbacks,
//! mirrors, and where a call goes.

use std::sync::Arc;
use std::time::Duration;

use http::StatusCode;
use http::header::{HeaderName, HeaderValue};

use crate::access::Source;
use crate::name::ServiceId;
use crate::route::edits::RuleRetry;
use crate::traffic::set::{GrpcCodes, Methods, Percent, Statuses};

/// `timeouts`. `None`: no end of its own.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Timeouts {
    /// The whole call with all its attempts, to the last byte of the answer.
    pub request: Option<Duration>,
    /// One attempt, to the head of its answer.
    pub backend_request: Option<Duration>,
    /// Nothing moves on a stream or connection.
    pub idle: Option<Duration>,
    /// What a call may use of what the request that it is made for has left.
    pub share: Percent,
}

impl Timeouts {
    pub const DEFAULT: Self = Self {
        request: None,
        backend_request: None,
        idle: None,
        share: Percent::ALL,
    };
}

impl Default for Timeouts {
    fn default() -> Self {
        Self::DEFAULT
    }
}

/// `retry`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Retry {
    /// After the first.
    pub attempts: u8,
    pub codes: Statuses,
    pub grpc_codes: GrpcCodes,
    pub methods: Methods,
    /// The shortest wait before the first retry.
    pub backoff: Duration,
    pub budget: Budget,
}

/// `retry.budget`: retries per first attempt that succeeded.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Budget {
    pub percent: Percent,
    /// As many tokens are kept as this time could save.
    pub interval: Duration,
    /// Retries a second that need no savings, of all proxies that share them.
    pub min_per_second: u16,
}

impl Budget {
    pub const DEFAULT: Self = Self {
        percent: Percent::at_most(20),
        interval: Duration::from_secs(5),
        min_per_second: 1,
    };
}

impl Default for Budget {
    fn default() -> Self {
        Self::DEFAULT
    }
}

impl Retry {
    pub const DEFAULT: Self = Self {
        attempts: 1,
        codes: Statuses::of(&[503]),
        grpc_codes: GrpcCodes::EMPTY,
        methods: Methods::SAFE,
        backoff: Duration::from_millis(25),
        budget: Budget::DEFAULT,
    };

    /// What the rule of a route says of retries: only its statuses, and methods that may be sent
    /// twice. A rule has no budget of its own, so it gets one that a quiet Service can use.
    #[must_use]
    pub fn of_rule(rule: &RuleRetry) -> Self {
        Self {
            attempts: rule.attempts,
            codes: Statuses::of(&rule.codes),
            backoff: rule.backoff.unwrap_or(Self::DEFAULT.backoff),
            budget: Budget {
                min_per_second: 10,
                ..Budget::DEFAULT
            },
            ..Self::DEFAULT
        }
    }
}

impl Default for Retry {
    fn default() -> Self {
        Self::DEFAULT
    }
}

/// `fallback`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fallback {
    pub to: FallbackTo,
    pub on: Causes,
}

/// What answers instead.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum FallbackTo {
    /// Of the policy's namespace, on the port that was called.
    Service(ServiceId),
    Response(FallbackResponse),
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FallbackResponse {
    pub status: StatusCode,
    pub headers: Vec<(HeaderName, HeaderValue)>,
    pub body: Arc<[u8]>,
}

/// Why a fallback answers.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Cause {
    /// no-endpoint, no-backend, connect-failed, tls-failed.
    Unreachable,
    CircuitOpen,
    Overload,
    /// The call's own deadline, or the last attempt's.
    Timeout,
    ServerError,
}

impl Cause {
    pub const ALL: [Self; 5] = [
        Self::Unreachable,
        Self::CircuitOpen,
        Self::Overload,
        Self::Timeout,
        Self::ServerError,
    ];

    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Unreachable => "Unreachable",
            Self::CircuitOpen => "CircuitOpen",
            Self::Overload => "Overload",
            Self::Timeout => "Timeout",
            Self::ServerError => "5xx",
        }
    }

    /// Whether an application may have seen a call that ended so. A fallback for it is a
    /// second call, which only methods of `retry.methods` get.
    #[must_use]
    pub const fn may_have_been_seen(self) -> bool {
        matches!(self, Self::Timeout | Self::ServerError)
    }
}

/// A set of [`Cause`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Causes(u8);

impl Causes {
    pub const ALL: Self = Self::of(&Cause::ALL);

    #[must_use]
    pub const fn of(causes: &[Cause]) -> Self {
        let mut bits = 0;
        let mut at = 0;
        while at < causes.len() {
            bits |= 1 << causes[at] as u8;
            at += 1;
        }
        Self(bits)
    }

    #[must_use]
    pub const fn contains(self, cause: Cause) -> bool {
        self.0 & (1 << cause as u8) != 0
    }

    pub fn iter(self) -> impl Iterator<Item = Cause> {
        Cause::ALL
            .into_iter()
            .filter(move |cause| self.contains(*cause))
    }
}

impl Default for Causes {
    fn default() -> Self {
        Self::ALL
    }
}

/// One entry of `mirror`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Mirror {
    /// The Service that gets the copies; of the policy's namespace, on the port that was called.
    pub service: ServiceId,
    pub percent: Percent,
    pub methods: Methods,
    pub downstream: Downstream,
    /// What pods that receive copies may open for opaque bytes all the same.
    pub allow_tcp: Vec<TcpTarget>,
}

/// What workloads that receive copies may do to others.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Downstream {
    /// Their own proxy refuses every unsafe call and opaque bytes.
    #[default]
    ReadOnly,
    Any,
}

/// `name:port` of `allowTcp`.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct TcpTarget {
    pub service: ServiceId,
    pub port: u16,
}

/// `sticky`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Sticky {
    pub key: StickyKey,
    pub scope: StickyScope,
    /// Max-Age of the cookie; `None`: as long as the browser's session.
    pub ttl: Option<Duration>,
}

/// What distinguishes one tenant from another.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum StickyKey {
    Header(HeaderName),
    Cookie(Arc<str>),
    /// The calling pod.
    Caller,
}

/// What a tenant keeps.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum StickyScope {
    /// Backend and endpoint.
    #[default]
    Endpoint,
    /// The side of a split, and any endpoint there.
    Backend,
}

/// One entry of `overrides`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Override {
    /// Services of the policy's namespace that a request may name instead.
    pub to: Vec<ServiceId>,
    /// Accounts that may ask for it.
    pub sources: Vec<Source>,
    /// Accounts that pass the overrides of others on.
    pub forwarders: Vec<Source>,
    pub tokens: Vec<Token>,
}

/// One entry of `overrides[].tokens`.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Token {
    pub sha256: [u8; 32],
    /// Seconds since 1970; from then on it proves nothing.
    pub expires: i64,
}

impl std::fmt::Debug for Token {
    /// A hash of a token with too little entropy can be searched for; logs need none.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Token")
            .field("expires", &self.expires)
            .finish_non_exhaustive()
    }
}
