//! The closed list of reasons why a proxy did not forward a request. Status, gRPC status,
//! `weft-reason` header and metric label are all read from here, so they cannot disagree.

use std::fmt;

use http::StatusCode;

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Reason {
    /// No rule allows this caller to do this.
    NotAllowed,
    /// The caller is outside the mesh where a mesh identity is asked for.
    NoIdentity,
    /// A split has no backend that may take traffic.
    NoBackend,
    /// The chosen Service has no endpoint that may take traffic.
    NoEndpoint,
    /// No connection to the endpoint or application could be made.
    ConnectFailed,
    /// The connection ended before the answer did.
    ConnectionLost,
    /// The peer could not prove the expected identity.
    TlsFailed,
    /// A strict workload called an address that the controller does not know.
    UnknownDestination,
    /// The proxy has had no configuration from a controller yet.
    NoConfiguration,
    /// What came is no request that can be judged and forwarded safely.
    BadRequest,
    /// The caller's deadline has passed.
    Deadline,
    /// A rate limit was reached.
    Limit,
    /// The proxy has reached one of its bounds.
    Overload,
    /// Most calls to the Service fail, and for now no request is sent there.
    CircuitOpen,
    /// A workload that receives copies tried to change something elsewhere.
    ShadowWrite,
    /// Routes hold for the Service, and no rule of them describes the request.
    NoRoute,
    /// The chosen backend of a route does not exist, or the route may not refer to it.
    InvalidBackend,
    /// The rule of a route that describes the request has a part that cannot be carried out.
    InvalidRoute,
    /// No ExternalService gives the call to what is outside the mesh.
    EgressDenied,
    /// The certificate of the caller, or of what it calls, is revoked.
    Revoked,
}

/// Numbers of the gRPC status codes in use.
mod grpc {
    pub(super) const DEADLINE_EXCEEDED: u8 = 4;
    pub(super) const PERMISSION_DENIED: u8 = 7;
    pub(super) const RESOURCE_EXHAUSTED: u8 = 8;
    pub(super) const UNIMPLEMENTED: u8 = 12;
    pub(super) const INTERNAL: u8 = 13;
    pub(super) const UNAVAILABLE: u8 = 14;
}

impl Reason {
    pub const ALL: [Self; 20] = [
        Self::NotAllowed,
        Self::NoIdentity,
        Self::NoBackend,
        Self::NoEndpoint,
        Self::ConnectFailed,
        Self::ConnectionLost,
        Self::TlsFailed,
        Self::UnknownDestination,
        Self::NoConfiguration,
        Self::BadRequest,
        Self::Deadline,
        Self::Limit,
        Self::Overload,
        Self::CircuitOpen,
        Self::ShadowWrite,
        Self::NoRoute,
        Self::InvalidBackend,
        Self::InvalidRoute,
        Self::EgressDenied,
        Self::Revoked,
    ];

    /// Of calls that no rule allows.
    pub const UNALLOWED: [Self; 2] = [Self::NotAllowed, Self::NoIdentity];

    /// Of calls that are refused as rules, modes, limits and Revocations have it. For every other
    /// reason a call fails.
    pub const BY_POLICY: [Self; 6] = [
        Self::NotAllowed,
        Self::NoIdentity,
        Self::Limit,
        Self::ShadowWrite,
        Self::EgressDenied,
        Self::Revoked,
    ];

    /// The value of header `weft-reason` and of the metric label.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::NotAllowed => "not-allowed",
            Self::NoIdentity => "no-identity",
            Self::NoBackend => "no-backend",
            Self::NoEndpoint => "no-endpoint",
            Self::ConnectFailed => "connect-failed",
            Self::ConnectionLost => "connection-lost",
            Self::TlsFailed => "tls-failed",
            Self::UnknownDestination => "unknown-destination",
            Self::NoConfiguration => "no-configuration",
            Self::BadRequest => "bad-request",
            Self::Deadline => "deadline",
            Self::Limit => "limit",
            Self::Overload => "overload",
            Self::CircuitOpen => "circuit-open",
            Self::ShadowWrite => "shadow-write",
            Self::NoRoute => "no-route",
            Self::InvalidBackend => "invalid-backend",
            Self::InvalidRoute => "invalid-route",
            Self::EgressDenied => "egress-denied",
            Self::Revoked => "revoked",
        }
    }

    /// The HTTP status of a refusal. An oversized request is a bad request too,
    /// but its sender answers with the more precise 414 or 431.
    pub fn status(self) -> StatusCode {
        match self {
            Self::NotAllowed
            | Self::NoIdentity
            | Self::ShadowWrite
            | Self::EgressDenied
            | Self::Revoked => StatusCode::FORBIDDEN,
            Self::NoBackend
            | Self::NoEndpoint
            | Self::ConnectFailed
            | Self::TlsFailed
            | Self::UnknownDestination
            | Self::NoConfiguration
            | Self::Overload
            | Self::CircuitOpen => StatusCode::SERVICE_UNAVAILABLE,
            Self::ConnectionLost => StatusCode::BAD_GATEWAY,
            Self::BadRequest => StatusCode::BAD_REQUEST,
            Self::Deadline => StatusCode::GATEWAY_TIMEOUT,
            Self::Limit => StatusCode::TOO_MANY_REQUESTS,
            Self::NoRoute => StatusCode::NOT_FOUND,
            Self::InvalidBackend | Self::InvalidRoute => StatusCode::INTERNAL_SERVER_ERROR,
        }
    }

    /// The `grpc-status` of a refusal.
    pub fn grpc_status(self) -> u8 {
        match self {
            Self::NotAllowed
            | Self::NoIdentity
            | Self::ShadowWrite
            | Self::EgressDenied
            | Self::Revoked => grpc::PERMISSION_DENIED,
            Self::NoBackend
            | Self::NoEndpoint
            | Self::ConnectFailed
            | Self::ConnectionLost
            | Self::TlsFailed
            | Self::UnknownDestination
            | Self::NoConfiguration
            | Self::Overload
            | Self::CircuitOpen
            | Self::InvalidBackend
            | Self::InvalidRoute => grpc::UNAVAILABLE,
            // What gRPC's own table makes of an HTTP 404.
            Self::NoRoute => grpc::UNIMPLEMENTED,
            // What gRPC's own table makes of an HTTP 400: the fault lies below
            // the method, so it is not INVALID_ARGUMENT.
            Self::BadRequest => grpc::INTERNAL,
            Self::Deadline => grpc::DEADLINE_EXCEEDED,
            Self::Limit => grpc::RESOURCE_EXHAUSTED,
        }
    }
}

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_reason_keeps_its_promised_name_and_statuses() {
        let promised = [
            ("not-allowed", 403, 7),
            ("no-identity", 403, 7),
            ("no-backend", 503, 14),
            ("no-endpoint", 503, 14),
            ("connect-failed", 503, 14),
            ("connection-lost", 502, 14),
            ("tls-failed", 503, 14),
            ("unknown-destination", 503, 14),
            ("no-configuration", 503, 14),
            ("bad-request", 400, 13),
            ("deadline", 504, 4),
            ("limit", 429, 8),
            ("overload", 503, 14),
            ("circuit-open", 503, 14),
            ("shadow-write", 403, 7),
            ("no-route", 404, 12),
            ("invalid-backend", 500, 14),
            ("invalid-route", 500, 14),
            ("egress-denied", 403, 7),
            ("revoked", 403, 7),
        ];
        let actual = Reason::ALL.map(|r| (r.as_str(), r.status().as_u16(), r.grpc_status()));
        assert_eq!(actual, promised);
    }
}
