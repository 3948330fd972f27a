//! Converts messages to and from the types of `policy`.
//!
//! A message from a newer controller, or a damaged one, is refused as a whole with the field that
//! is wrong, and the proxy answers with a nack. A rule is never used without one of its parts: the
//! missing one might have been what restricts it.
//!
//! Enumerations are read towards the safe side instead, as the protocol requires.

mod breaker;
mod dry_run;
mod egress;
mod error;
mod grants;
mod object;
mod port;
mod revoked;
mod route;
mod routed;
mod rule;
mod trace;
mod traffic;

use policy::egress::{EgressMode, ExternalProtocol};
use policy::mode::{Enforcement, MtlsMode};
use policy::protocol::Protocol;
use policy::traffic::endpoint::Locality;

use crate::v1;

pub use breaker::{circuit_counts, circuit_state};
pub use dry_run::{candidate, dry_run_query};
pub use egress::{egress, external_target};
pub use error::BadResource;
pub use grants::{grants, grants_message};
pub use port::{permissive_ports, port, port_protocol, port_protocols, port_range};
pub use revoked::{revocations, revocations_message};
pub use route::split;
pub use routed::{routed_service, routed_service_message};
pub use rule::{rule_in, rule_resource};
pub use traffic::{policy_message, traffic};

/// Reads a field of type Enforcement; an unknown value is the tightest.
pub fn enforcement(raw: i32) -> Enforcement {
    v1::Enforcement::try_from(raw).map_or(Enforcement::Enforce, Enforcement::from)
}

/// Reads a field of type MtlsMode; an unknown value is the tightest.
pub fn mtls(raw: i32) -> MtlsMode {
    v1::MtlsMode::try_from(raw).map_or(MtlsMode::Strict, MtlsMode::from)
}

/// Reads a field of type Protocol; an unknown value is detected.
pub fn protocol(raw: i32) -> Protocol {
    v1::Protocol::try_from(raw).map_or(Protocol::Detect, Protocol::from)
}

/// Reads a field of type Locality; `None`: not set, or an unknown value.
pub fn locality(raw: i32) -> Option<Locality> {
    use v1::balance::Locality as Sent;
    match Sent::try_from(raw) {
        Ok(Sent::None) => Some(Locality::None),
        Ok(Sent::PreferSameZone) => Some(Locality::PreferSameZone),
        Ok(Sent::PreferSameNode) => Some(Locality::PreferSameNode),
        Ok(Sent::OfTheService) | Err(_) => None,
    }
}

/// The inverse of [`locality`].
pub fn locality_message(locality: Option<Locality>) -> v1::balance::Locality {
    use v1::balance::Locality as Sent;
    match locality {
        None => Sent::OfTheService,
        Some(Locality::None) => Sent::None,
        Some(Locality::PreferSameZone) => Sent::PreferSameZone,
        Some(Locality::PreferSameNode) => Sent::PreferSameNode,
    }
}

/// Both directions between two enumerations with the same variants.
macro_rules! same_variants {
    ($message:ty, $ours:ty, $($theirs:ident = $mine:ident),+) => {
        impl From<$message> for $ours {
            fn from(value: $message) -> Self {
                match value { $(<$message>::$theirs => Self::$mine),+ }
            }
        }

        impl From<$ours> for $message {
            fn from(value: $ours) -> Self {
                match value { $(<$ours>::$mine => Self::$theirs),+ }
            }
        }
    };
}

same_variants!(
    v1::Enforcement,
    Enforcement,
    Enforce = Enforce,
    Audit = Audit,
    Open = Open
);
same_variants!(
    v1::MtlsMode,
    MtlsMode,
    Strict = Strict,
    Permissive = Permissive
);
same_variants!(
    v1::Protocol,
    Protocol,
    Detect = Detect,
    Http1 = Http1,
    Http2 = Http2,
    Grpc = Grpc,
    Opaque = Opaque,
    Tls = Tls
);
same_variants!(
    v1::egress::Mode,
    EgressMode,
    Deny = Deny,
    Audit = Audit,
    Allow = Allow
);
same_variants!(
    v1::external_port::Protocol,
    ExternalProtocol,
    Tcp = Tcp,
    Http = Http,
    Tls = Tls
);

#[cfg(test)]
mod tests;
