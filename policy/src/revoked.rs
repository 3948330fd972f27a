//! Decides whether a certificate is revoked: by its account, its pod, its serial or its issuer.
//!
//! A revocation ends an identity for good, or, with a time, only what was issued before it: then
//! the healthy pods of an account go on with certificates that are newer, and a stolen key does
//! not. Their proxies request those while such a revocation is announced, so it costs them
//! nothing when it comes into force.
//!
//! Where several revocations are about one certificate, the strictest decides: one for good before
//! one with a time, and a later time before an earlier one.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::hash::Hash;
use std::time::SystemTime;

use crate::name::SpiffeId;
use crate::origin::Origin;

/// Most objects that are in force.
pub const MAX_OBJECTS: usize = 256;

/// Subjects of all Revocations together.
pub const MAX_SUBJECTS: usize = 4096;

/// The places that Revocations in force hold.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Held {
    pub objects: usize,
    /// Accounts, pods, certificates and issuers. Nodes hold none.
    pub subjects: usize,
}

impl Held {
    /// Whether a younger object with so many subjects gets its places.
    #[must_use]
    pub const fn leaves_room_for(self, subjects: usize) -> bool {
        self.objects < MAX_OBJECTS && self.subjects + subjects <= MAX_SUBJECTS
    }
}

/// Bytes of the hash that names an issuer.
pub const ISSUER_LENGTH: usize = 16;

/// Whose certificates are revoked.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Subject {
    /// All of one account.
    ServiceAccount { namespace: Box<str>, name: Box<str> },
    /// All that name the pod of this uid.
    Pod { uid: Box<str> },
    /// All with this number, in bytes. Zeros in front of it count for nothing.
    Serial(Box<[u8]>),
    /// All that one authority has signed.
    Issuer([u8; ISSUER_LENGTH]),
}

/// One subject of one Revocation.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Revocation {
    pub subject: Subject,
    /// Only certificates that were issued before this.
    pub issued_before: Option<SystemTime>,
    /// Nothing is refused yet: those that it is about request newer certificates. Without
    /// `issued_before` nothing newer would do, and it is in force at once.
    pub announced: bool,
    /// The object.
    pub by: Origin,
}

/// What a certificate says of its bearer.
#[derive(Clone, Copy, Debug)]
pub struct PeerFacts<'a> {
    pub id: &'a SpiffeId,
    /// Uid of its pod, where it names one.
    pub pod: Option<&'a str>,
    pub serial: &'a [u8],
    /// What signed it.
    pub issuer: &'a [u8; ISSUER_LENGTH],
    pub issued: SystemTime,
}

/// Why a certificate is refused.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Revoked {
    /// The object.
    pub by: Origin,
    /// Newer certificates are not revoked by it.
    pub issued_before: Option<SystemTime>,
}

/// Everything that is revoked.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Revocations {
    in_force: Table,
    announced: Table,
}

#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Table {
    /// By the path of their identity.
    accounts: HashMap<Box<str>, Revoked>,
    pods: HashMap<Box<str>, Revoked>,
    /// Without zeros in front.
    serials: HashMap<Box<[u8]>, Revoked>,
    issuers: HashMap<[u8; ISSUER_LENGTH], Revoked>,
}

impl Revocations {
    #[must_use]
    pub fn of(all: impl IntoIterator<Item = Revocation>) -> Self {
        let mut revocations = Self::default();
        for one in all {
            revocations.add(one);
        }
        revocations
    }

    /// Beside those that are there. Of two about one subject the stricter one holds.
    pub fn add(&mut self, one: Revocation) {
        let table = if one.announced && one.issued_before.is_some() {
            &mut self.announced
        } else {
            &mut self.in_force
        };
        let revoked = Revoked {
            by: one.by,
            issued_before: one.issued_before,
        };
        table.add(one.subject, revoked);
    }

    /// Whether nothing is revoked, and nothing announced.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.in_force.is_empty() && self.announced.is_empty()
    }

    /// The object that revokes the certificate of a peer, if one does.
    #[must_use]
    pub fn revoked(&self, peer: &PeerFacts<'_>) -> Option<&Origin> {
        self.find(peer).map(|revoked| &revoked.by)
    }

    /// The same with what of the certificate is refused.
    #[must_use]
    pub fn find(&self, peer: &PeerFacts<'_>) -> Option<&Revoked> {
        self.in_force.find(peer)
    }

    /// Whether the bearer of a certificate needs a newer one: by one in force or announced.
    #[must_use]
    pub fn outdates(&self, own: &PeerFacts<'_>) -> bool {
        let found = [&self.in_force, &self.announced].map(|table| table.find(own));
        found.iter().any(Option::is_some)
    }

    /// Whether a certificate may be issued to this account and pod: if so, not as of an earlier
    /// time than this.
    ///
    /// # Errors
    /// With the object that revokes any that could be issued.
    pub fn issuance(
        &self,
        id: &SpiffeId,
        pod: Option<&str>,
    ) -> Result<Option<SystemTime>, &Origin> {
        let mut soonest: Option<SystemTime> = None;
        for table in [&self.in_force, &self.announced] {
            for revoked in table.bearer(id, pod).into_iter().flatten() {
                match revoked.issued_before {
                    None => return Err(&revoked.by),
                    before => soonest = soonest.max(before),
                }
            }
        }
        Ok(soonest)
    }
}

impl Table {
    fn add(&mut self, subject: Subject, revoked: Revoked) {
        match subject {
            Subject::ServiceAccount { namespace, name } => {
                let path = format!("ns/{namespace}/sa/{name}").into_boxed_str();
                strictest(&mut self.accounts, path, revoked);
            }
            Subject::Pod { uid } => strictest(&mut self.pods, uid, revoked),
            Subject::Serial(bytes) => {
                strictest(&mut self.serials, significant(&bytes).into(), revoked);
            }
            Subject::Issuer(id) => strictest(&mut self.issuers, id, revoked),
        }
    }

    fn is_empty(&self) -> bool {
        self.accounts.is_empty()
            && self.pods.is_empty()
            && self.serials.is_empty()
            && self.issuers.is_empty()
    }

    fn find(&self, peer: &PeerFacts<'_>) -> Option<&Revoked> {
        let [account, pod] = self.bearer(peer.id, peer.pod);
        let serial = self.serials.get(significant(peer.serial));
        let issuer = self.issuers.get(peer.issuer);
        let mut found = None;
        for revoked in [account, pod, serial, issuer].into_iter().flatten() {
            match revoked.issued_before {
                None => return Some(revoked),
                Some(before) if peer.issued < before => found = found.or(Some(revoked)),
                Some(_) => {}
            }
        }
        found
    }

    /// What is about any certificate of this account and pod.
    fn bearer(&self, id: &SpiffeId, pod: Option<&str>) -> [Option<&Revoked>; 2] {
        let account = self.accounts.get(id.path());
        [account, pod.and_then(|uid| self.pods.get(uid))]
    }
}

/// Keeps the stricter of two about one subject.
fn strictest<K: Eq + Hash>(all: &mut HashMap<K, Revoked>, subject: K, revoked: Revoked) {
    match all.entry(subject) {
        Entry::Vacant(free) => {
            free.insert(revoked);
        }
        Entry::Occupied(mut taken) => {
            let stricter = match (taken.get().issued_before, revoked.issued_before) {
                (None, _) => false,
                (Some(_), None) => true,
                (Some(former), Some(before)) => former < before,
            };
            if stricter {
                taken.insert(revoked);
            }
        }
    }
}

/// A number is the same one with zeros in front, which DER writes to keep it positive.
fn significant(number: &[u8]) -> &[u8] {
    let zeros = number.iter().take_while(|byte| **byte == 0).count();
    number.get(zeros..).unwrap_or_default()
}

#[cfg(test)]
mod tests;
