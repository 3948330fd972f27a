//! Facts of ExternalServices, and what the controller found out for them: addresses of hosts, and
//! certificates of authorities.
//!
//! The latter come from no watch. The controller puts them into its collector under the keys that
//! stand here, and compiling reads them like any other fact.

use std::{net::IpAddr, sync::Arc};

use crds::smi::validation::Severity;
use crds::weft::validation::External;

use super::{fact::Fact, key::ObjectKey, smi::Meta};

/// An ExternalService.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct ExternalFacts {
    /// Metadata, and what is wrong.
    pub meta: Meta,
    /// What is configured; a mistake costs all of it.
    pub spec: External,
}

impl ExternalFacts {
    /// What it names, where it may have an effect.
    #[must_use]
    pub fn effective(&self) -> Option<&External> {
        let mut mistakes = self.meta.mistakes.iter();
        let is_valid = mistakes.all(|mistake| mistake.severity != Severity::Refuse);
        (is_valid && !self.spec.is_empty()).then_some(&self.spec)
    }
}

impl Fact for ExternalFacts {
    /// What an object gave must end at once.
    fn urgent(old: Option<&Self>, new: Option<&Self>) -> bool {
        old.is_some_and(|old| new.is_none_or(|new| new.spec != old.spec))
    }
}

/// What the name of a host resolves to, as the resolver answered; which of it may be called is
/// decided here. Its key is [`ResolvedName::key`].
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ResolvedName {
    /// Sorted, each once. Empty: the name has no address.
    pub addresses: Arc<[IpAddr]>,
}

impl ResolvedName {
    /// The key of a host, in the spelling of [`policy::egress::host_name`]: names are the same for
    /// all objects, so no namespace is part of it.
    #[must_use]
    pub fn key(host: &str) -> ObjectKey {
        ObjectKey::new("", host)
    }
}

impl Fact for ResolvedName {}

/// What a ConfigMap that a `caRef` names has under `ca.crt`, under the ConfigMap's own key. One
/// that does not exist has no fact.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct CaBundle {
    /// PEM; `None`: the ConfigMap has no such key, or no certificate under it.
    pub pem: Option<Arc<str>>,
}

impl Fact for CaBundle {
    /// An authority that is taken away must not be believed any more.
    fn urgent(old: Option<&Self>, new: Option<&Self>) -> bool {
        old.is_some() && old != new
    }
}
