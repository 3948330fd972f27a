//! Small sets that a request is compared with: percents, status codes, gRPC codes, methods. A
//! look-up needs no loop over what a user wrote, but for methods.

use std::borrow::Cow;
use std::fmt;
use std::str::FromStr;

use http::{Method, StatusCode};

/// A share in whole percent. Holding one proves that it is at most 100.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Percent(u8);

/// A number that is no share.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{raw} is no percentage: 0 to 100")]
pub struct NotAPercent {
    pub raw: i64,
}

impl Percent {
    pub const ALL: Self = Self(100);
    pub const NONE: Self = Self(0);

    /// For constants: what is above 100 is 100.
    #[must_use]
    pub const fn at_most(raw: u8) -> Self {
        if raw > 100 { Self(100) } else { Self(raw) }
    }

    #[must_use]
    pub const fn get(self) -> u8 {
        self.0
    }

    /// From 0 to 1.
    #[must_use]
    pub fn share(self) -> f64 {
        f64::from(self.0) / 100.0
    }
}

impl TryFrom<i64> for Percent {
    type Error = NotAPercent;

    fn try_from(raw: i64) -> Result<Self, NotAPercent> {
        match u8::try_from(raw) {
            Ok(share) if share <= 100 => Ok(Self(share)),
            _ => Err(NotAPercent { raw }),
        }
    }
}

/// The first status that a [`Statuses`] can hold.
const FIRST: u16 = 400;

/// Statuses from 400 to 599.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Statuses([u64; 4]);

impl Statuses {
    pub const EMPTY: Self = Self([0; 4]);

    /// What is no error status is left out: it can be in no list.
    #[must_use]
    pub const fn of(codes: &[u16]) -> Self {
        let mut bits = [0; 4];
        let mut at = 0;
        while at < codes.len() {
            if let Some((word, bit)) = Self::bit_of(codes[at]) {
                bits[word] |= bit;
            }
            at += 1;
        }
        Self(bits)
    }

    #[must_use]
    pub fn contains(self, status: StatusCode) -> bool {
        Self::bit_of(status.as_u16()).is_some_and(|(word, bit)| self.0[word] & bit != 0)
    }

    /// In ascending order.
    pub fn iter(self) -> impl Iterator<Item = u16> {
        (FIRST..600).filter(move |code| {
            Self::bit_of(*code).is_some_and(|(word, bit)| self.0[word] & bit != 0)
        })
    }

    const fn bit_of(code: u16) -> Option<(usize, u64)> {
        if code < FIRST || code > 599 {
            return None;
        }
        let at = code - FIRST;
        Some(((at / 64) as usize, 1 << (at % 64)))
    }
}

/// The gRPC statuses that a policy may name.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum GrpcCode {
    Cancelled,
    Unknown,
    DeadlineExceeded,
    ResourceExhausted,
    Internal,
    Unavailable,
}

/// A name that is none of [`GrpcCode::ALL`].
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "{0:?} is none of Cancelled, Unknown, DeadlineExceeded, ResourceExhausted, Internal, Unavailable"
)]
pub struct UnknownGrpcCode(pub String);

impl GrpcCode {
    pub const ALL: [Self; 6] = [
        Self::Cancelled,
        Self::Unknown,
        Self::DeadlineExceeded,
        Self::ResourceExhausted,
        Self::Internal,
        Self::Unavailable,
    ];

    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Cancelled => "Cancelled",
            Self::Unknown => "Unknown",
            Self::DeadlineExceeded => "DeadlineExceeded",
            Self::ResourceExhausted => "ResourceExhausted",
            Self::Internal => "Internal",
            Self::Unavailable => "Unavailable",
        }
    }

    /// The value of `grpc-status`.
    #[must_use]
    pub const fn number(self) -> u8 {
        match self {
            Self::Cancelled => 1,
            Self::Unknown => 2,
            Self::DeadlineExceeded => 4,
            Self::ResourceExhausted => 8,
            Self::Internal => 13,
            Self::Unavailable => 14,
        }
    }
}

impl fmt::Display for GrpcCode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl FromStr for GrpcCode {
    type Err = UnknownGrpcCode;

    fn from_str(raw: &str) -> Result<Self, UnknownGrpcCode> {
        Self::ALL
            .into_iter()
            .find(|code| code.as_str() == raw)
            .ok_or_else(|| UnknownGrpcCode(raw.to_owned()))
    }
}

/// gRPC statuses, by number.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct GrpcCodes(u32);

impl GrpcCodes {
    pub const EMPTY: Self = Self(0);

    #[must_use]
    pub const fn of(codes: &[GrpcCode]) -> Self {
        let mut bits = 0;
        let mut at = 0;
        while at < codes.len() {
            bits |= 1 << codes[at].number();
            at += 1;
        }
        Self(bits)
    }

    /// Whether it holds a `grpc-status`; of numbers that no name stands for it holds none.
    #[must_use]
    pub const fn contains(self, number: u8) -> bool {
        number < 32 && self.0 & (1 << number) != 0
    }

    #[must_use]
    pub const fn is_empty(self) -> bool {
        self.0 == 0
    }

    /// In the order of [`GrpcCode::ALL`].
    pub fn iter(self) -> impl Iterator<Item = GrpcCode> {
        GrpcCode::ALL
            .into_iter()
            .filter(move |code| self.contains(code.number()))
    }
}

/// The methods that may be sent twice by their definition.
const SAFE: &[Method] = &[Method::GET, Method::HEAD, Method::OPTIONS];

/// Methods of requests.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Methods {
    /// `["*"]`.
    Any,
    Only(Cow<'static, [Method]>),
}

impl Methods {
    /// GET, HEAD and OPTIONS.
    pub const SAFE: Self = Self::Only(Cow::Borrowed(SAFE));

    #[must_use]
    pub fn contains(&self, method: &Method) -> bool {
        match self {
            Self::Any => true,
            Self::Only(listed) => listed.contains(method),
        }
    }
}

/// Whether a request of this method may be ended or repeated without asking its policy.
#[must_use]
pub fn is_safe(method: &Method) -> bool {
    SAFE.contains(method)
}
