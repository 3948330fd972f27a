//! The types and reasons of conditions that Weft writes into the status of routes, and the names of
//! its controllers there.

mod merge;

pub use merge::{Condition, Owner, ParentStatus, merge};

/// Who writes what Weft reports about routes with Services as parents.
pub const MESH_CONTROLLER: &str = "weft.dev/mesh";
/// Who writes what Weft reports about routes with Gateways as parents.
pub const GATEWAY_CONTROLLER: &str = "weft.dev/gateway";

/// The condition of a Gateway of which a certificate ends within two weeks. It is there as long as
/// that is so.
pub const CERTIFICATE_ENDS: &str = "weft.dev/CertificateEnds";

/// The controllers whose entries are ours.
const OUR_CONTROLLERS: [&str; 2] = [MESH_CONTROLLER, GATEWAY_CONTROLLER];

/// Declares words, each written as it is spelt here.
macro_rules! words {
    (
        $(#[$doc:meta])*
        $name:ident {
            $($(#[$word_doc:meta])* $word:ident = $text:literal,)+
        }
    ) => {
        $(#[$doc])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub enum $name {
            $($(#[$word_doc])* $word,)+
        }

        impl $name {
            /// Every one of them.
            pub const ALL: [Self; [$($text),+].len()] = [$(Self::$word),+];

            /// As in a status.
            #[must_use]
            pub const fn as_str(self) -> &'static str {
                match self {
                    $(Self::$word => $text,)+
                }
            }
        }
    };
}

words! {
    /// A condition of a route, for one of its parents.
    ConditionType {
        /// The route holds for the parent.
        Accepted = "Accepted",
        /// Every backend exists and may be named.
        ResolvedRefs = "ResolvedRefs",
        /// Some rules cannot be served, and others hold. Never written as False.
        PartiallyInvalid = "PartiallyInvalid",
        /// The proxies that the route concerns serve it.
        Programmed = "weft.dev/Programmed",
    }
}

words! {
    /// Why a condition is as it is.
    Reason {
        /// `Accepted` is True.
        Accepted = "Accepted",
        /// `ResolvedRefs` is True.
        ResolvedRefs = "ResolvedRefs",
        /// `Programmed` is True.
        Programmed = "Programmed",
        /// There is no such Service, or no such port of it.
        NoMatchingParent = "NoMatchingParent",
        /// The route says what Weft cannot do.
        UnsupportedValue = "UnsupportedValue",
        /// The port that is named carries something else.
        UnsupportedProtocol = "UnsupportedProtocol",
        /// A backend is of another kind than Service.
        InvalidKind = "InvalidKind",
        /// There is no such backend, or no such port of it.
        BackendNotFound = "BackendNotFound",
        /// No ReferenceGrant permits a reference to another namespace.
        RefNotPermitted = "RefNotPermitted",
        /// A route of a kind with precedence decides about the port.
        Conflicted = "Conflicted",
        /// A route of the Gateway API decides instead of a TrafficSplit.
        Overridden = "Overridden",
        /// A TrafficPolicy of the mesh decides a part of it.
        PartlyOverridden = "PartlyOverridden",
        /// A proxy is of a version that cannot carry out routes.
        ProxyTooOld = "ProxyTooOld",
        /// Not all proxies have reported back.
        Pending = "Pending",
    }
}
