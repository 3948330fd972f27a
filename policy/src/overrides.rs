//! Decides whether a request may choose another Service than the one it calls.
//!
//! `weft-route: catalog=catalog-staging` sends what would go to the left Service to the right one,
//! hop after hop. The right to that belongs to the account whose application sent it first, or to
//! any caller with a listed token; and every hop between must be trusted to pass it on. Without all
//! of it the override is ignored, so the call goes where it would go anyway: an override that was
//! granted never gets a response of production, and one that was not never gets a response of
//! staging.
//!
//! In use: [`parse`] where a request enters or an application sends one; [`RouteHeader::of`] per
//! outgoing call; [`grant`] with the called Service's overrides. Proxies pass on
//! [`RouteHeader::write`], which names every namespace, and [`ProofHeader`].

use std::fmt::Write;

use crate::access::{Caller, Source};
use crate::name::{ServiceId, SpiffeId};
use crate::traffic::call::{Override, Token};

mod proof;

#[cfg(test)]
pub(crate) use proof::HOPS;
pub use proof::{Proof, ProofHeader, sha256};

/// Longest value of `weft-route`, in bytes.
pub const LONGEST: usize = 512;
/// Services that one request may name.
pub(crate) const ENTRIES: usize = 4;
/// Longest name of a Service or namespace.
const LONGEST_NAME: usize = 63;

/// The choice in a request. Borrows from the header, and allocates nothing.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct RouteHeader<'a>([Option<RouteEntry<'a>>; ENTRIES]);

/// One entry: calls to this Service go to that one, of the same namespace.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RouteEntry<'a> {
    pub service: &'a str,
    /// `None`: the namespace of the header's author.
    pub namespace: Option<&'a str>,
    pub to: &'a str,
}

/// Why a header cannot be used. It is ignored as a whole, and counted.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BadRoute {
    #[error("is longer than {LONGEST} bytes, with the namespace of every Service")]
    TooLong,
    #[error("has more than {ENTRIES} entries")]
    TooMany,
    #[error("must be service=service or service.namespace=service, with commas between")]
    Entry,
    #[error("names a Service twice")]
    Twice,
}

/// Reads the value of `weft-route`, whose author is in namespace `home`. A request with two
/// such headers has none that counts: hops could read different ones, and that must decide
/// nothing. One that cannot be handed on is refused here already: the first hop would go to
/// the requested Service, and the next one silently to production.
pub fn parse<'a>(value: &'a [u8], home: &str) -> Result<RouteHeader<'a>, BadRoute> {
    if value.len() > LONGEST {
        return Err(BadRoute::TooLong);
    }
    let text = std::str::from_utf8(value).map_err(|_| BadRoute::Entry)?;
    let mut header = RouteHeader::default();
    for (at, entry) in text.split(',').enumerate() {
        let entry = RouteEntry::parse(entry.trim_matches([' ', '\t']))?;
        let same = |other: &RouteEntry<'_>| {
            other.service == entry.service
                && (other.namespace == entry.namespace
                    || other.namespace.is_none()
                    || entry.namespace.is_none())
        };
        if header.iter().any(same) {
            return Err(BadRoute::Twice);
        }
        *header.0.get_mut(at).ok_or(BadRoute::TooMany)? = Some(entry);
    }
    if header.written(home) > LONGEST {
        return Err(BadRoute::TooLong);
    }
    Ok(header)
}

impl<'a> RouteEntry<'a> {
    fn parse(entry: &'a str) -> Result<Self, BadRoute> {
        let (from, to) = entry.split_once('=').ok_or(BadRoute::Entry)?;
        let (service, namespace) = match from.split_once('.') {
            Some((service, namespace)) => (service, Some(namespace)),
            None => (from, None),
        };
        let names = [Some(service), namespace, Some(to)];
        if names.into_iter().flatten().all(is_name) {
            Ok(Self {
                service,
                namespace,
                to,
            })
        } else {
            Err(BadRoute::Entry)
        }
    }
}

/// A DNS label, as Kubernetes names Services and namespaces.
fn is_name(name: &str) -> bool {
    let inner = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit();
    let bytes = name.as_bytes();
    (1..=LONGEST_NAME).contains(&name.len())
        && bytes.iter().all(|byte| inner(*byte) || *byte == b'-')
        && !name.starts_with('-')
        && !name.ends_with('-')
}

impl<'a> RouteHeader<'a> {
    pub fn iter(&self) -> impl Iterator<Item = &RouteEntry<'a>> {
        self.0.iter().flatten()
    }

    /// Where the override sends calls to `service`. `home` is the namespace of the header's
    /// author.
    #[must_use]
    pub fn of(&self, service: &ServiceId, home: &str) -> Option<ServiceId> {
        let entry = self.iter().find(|entry| {
            *entry.service == *service.name
                && *entry.namespace.unwrap_or(home) == *service.namespace
        })?;
        Some(ServiceId::new(service.namespace.clone(), entry.to))
    }

    /// How long [`RouteHeader::write`] is.
    fn written(&self, home: &str) -> usize {
        let entries = self.iter().map(|entry| {
            let namespace = entry.namespace.unwrap_or(home);
            entry.service.len() + ".".len() + namespace.len() + "=".len() + entry.to.len()
        });
        entries
            .reduce(|all, one| all + ", ".len() + one)
            .unwrap_or(0)
    }

    /// The same for the next hop, which has another home: every namespace is named.
    #[must_use]
    pub fn write(&self, home: &str) -> String {
        let mut text = String::with_capacity(LONGEST);
        for entry in self.iter() {
            let between = if text.is_empty() { "" } else { ", " };
            let namespace = entry.namespace.unwrap_or(home);
            // A String takes what is written.
            let _ = write!(text, "{between}{}.{namespace}={}", entry.service, entry.to);
        }
        text
    }
}

/// How an override came to this proxy.
#[derive(Clone, Copy, Debug)]
pub enum OverrideOrigin<'a> {
    /// The own application wrote it on this very call.
    Here,
    /// With the request that this call is made for: from this peer, as its connection
    /// proves, which got it through these.
    With(Caller<'a>, &'a [SpiffeId]),
}

/// Why an override is ignored. Label `outcome` of `weft_overrides_total`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Ignored {
    /// No policy offers this Service.
    Target,
    /// Neither account nor token.
    Right,
    /// Its token has ended.
    Expired,
    /// It came through a workload that may not pass it on.
    Forwarder,
}

impl Ignored {
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Target => "target",
            Self::Right => "right",
            Self::Expired => "expired",
            Self::Forwarder => "forwarder",
        }
    }
}

/// Whether the call goes to `target`. `overrides` are those of the called Service, `own`
/// is the account that calls, and `unix` the time in seconds since 1970. An override of
/// the own application needs a proof only where its account has no right.
pub fn grant(
    overrides: &[Override],
    target: &ServiceId,
    own: Caller<'_>,
    requested: OverrideOrigin<'_>,
    proof: Option<&Proof>,
    unix: i64,
) -> Result<(), Ignored> {
    // What comes closest to a grant is what helps the author most.
    let mut why = Ignored::Target;
    for one in overrides.iter().filter(|one| one.to.contains(target)) {
        match one.grants(own, requested, proof, unix) {
            Ok(()) => return Ok(()),
            Err(closer) => why = why.max(closer),
        }
    }
    Err(why)
}

impl Override {
    fn grants(
        &self,
        own: Caller<'_>,
        requested: OverrideOrigin<'_>,
        proof: Option<&Proof>,
        unix: i64,
    ) -> Result<(), Ignored> {
        let admits = |list: &[Source], caller| list.iter().any(|source| source.admits(caller));
        let passes = |caller| admits(&self.sources, caller) || admits(&self.forwarders, caller);
        let by_account = match (requested, proof) {
            (OverrideOrigin::Here, _) => admits(&self.sources, own),
            (
                OverrideOrigin::With(peer @ Caller::Mesh { id, .. }, through),
                Some(Proof::Account(first) | Proof::Both(_, first)),
            ) => {
                // Of the peer itself its connection proves the pod as well.
                let itself = through.is_empty() && id == first;
                let origin = if itself { peer } else { Caller::mesh(first) };
                admits(&self.sources, origin)
            }
            (OverrideOrigin::With(..), _) => false,
        };
        if !by_account {
            self.token(proof, unix)?;
        }
        let trusted = match requested {
            OverrideOrigin::Here => true,
            // The token is the right of any caller that shows it.
            OverrideOrigin::With(Caller::Outside, _) => passes(own),
            OverrideOrigin::With(peer, through) => {
                let mut hops = through.iter().map(Caller::mesh).chain([peer]).peekable();
                // The same holds of a workload, which is then the first of them: it chooses, and
                // passes nothing on.
                if !by_account {
                    hops.next_if(|first| shows(proof, *first));
                }
                passes(own) && hops.all(passes)
            }
        };
        if trusted {
            Ok(())
        } else {
            Err(Ignored::Forwarder)
        }
    }

    fn token(&self, proof: Option<&Proof>, unix: i64) -> Result<(), Ignored> {
        let Some(Proof::Token(shown) | Proof::Both(shown, _)) = proof else {
            return Err(Ignored::Right);
        };
        let listed = self.tokens.iter().find(|token| is_same(token, shown));
        match listed {
            None => Err(Ignored::Right),
            Some(token) if token.expires <= unix => Err(Ignored::Expired),
            Some(_) => Ok(()),
        }
    }
}

/// Whether it is this caller that chooses by the token of `proof`.
fn shows(proof: Option<&Proof>, caller: Caller<'_>) -> bool {
    match (proof, caller) {
        (Some(Proof::Both(_, first)), Caller::Mesh { id, .. }) => id == first,
        _ => false,
    }
}

/// In a time that does not tell how much of it was right.
fn is_same(token: &Token, shown: &[u8; 32]) -> bool {
    let differs = |sum, (a, b): (&u8, &u8)| sum | (a ^ b);
    token.sha256.iter().zip(shown).fold(0, differs) == 0
}

#[cfg(test)]
mod tests;
