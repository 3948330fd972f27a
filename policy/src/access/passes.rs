//! Access without a request: which calls of a caller to a port are allowed when only the two ends
//! are known, and what a change of the rules means for them. For dry runs on recorded calls.
//!
//! The service graph has edges without their requests. Where rules look at requests, whether one is
//! allowed depends on the request, and that is reported rather than guessed.

use super::{Access, Caller, EvaluatedTraffic, Rule};
use crate::http_match::HttpMatch;
use crate::mode::Enforcement;

/// What is spoken, as far as rules care.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Spoken {
    /// Requests.
    Http,
    /// See [`EvaluatedTraffic::Opaque`].
    Opaque,
    /// See [`EvaluatedTraffic::Bytes`].
    Bytes,
}

/// What passes of a caller's calls to one port.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Passes<'a> {
    /// Every call.
    All,
    /// Requests that one of these describes.
    Requests(Vec<&'a HttpMatch>),
    /// None.
    Nothing,
}

/// What a change means for calls.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Effect {
    /// All that passed passes, and nothing else does.
    Kept,
    /// Calls that did not pass do from now on; what passed goes on.
    Allowed,
    /// Some may pass that did not, or the other way round: that depends on the request.
    Depends,
    /// No call passes any longer.
    Refused,
}

impl Access {
    /// What passes of this caller's calls to `port`, whatever they ask.
    #[must_use]
    pub fn passes(&self, caller: Caller<'_>, port: u16, spoken: Spoken) -> Passes<'_> {
        if self.enforcement != Enforcement::Enforce {
            return Passes::All;
        }
        let traffic = match spoken {
            Spoken::Http => return self.requests(caller, port),
            Spoken::Opaque => EvaluatedTraffic::Opaque,
            Spoken::Bytes => EvaluatedTraffic::Bytes,
        };
        if self.decide(caller, port, traffic).is_allowed() {
            Passes::All
        } else {
            Passes::Nothing
        }
    }

    fn requests(&self, caller: Caller<'_>, port: u16) -> Passes<'_> {
        let mut matches = Vec::new();
        for rule in self.rules.iter().filter(|rule| rule.admits(caller)) {
            if rule.allows_every_request(port) {
                return Passes::All;
            }
            if rule.evaluates_requests_on(port) {
                matches.extend(rule.http.iter().flatten());
            }
        }
        if matches.is_empty() {
            Passes::Nothing
        } else {
            Passes::Requests(matches)
        }
    }
}

impl Rule {
    fn allows_every_request(&self, port: u16) -> bool {
        match &self.http {
            None => self.allows_bytes(port),
            Some(matches) => {
                self.evaluates_requests_on(port) && matches.iter().any(HttpMatch::is_every_request)
            }
        }
    }
}

impl Passes<'_> {
    /// What it means that `after` passes from now on.
    #[must_use]
    pub fn becomes(&self, after: &Passes<'_>) -> Effect {
        match (self, after) {
            (Self::Requests(before), Passes::Requests(after)) if !same(before, after) => {
                Effect::Depends
            }
            (Self::All, Passes::All)
            | (Self::Requests(_), Passes::Requests(_))
            | (Self::Nothing, Passes::Nothing) => Effect::Kept,
            (Self::Nothing | Self::Requests(_), Passes::All) => Effect::Allowed,
            (Self::All | Self::Requests(_), Passes::Nothing) => Effect::Refused,
            (Self::All | Self::Nothing, Passes::Requests(_)) => Effect::Depends,
        }
    }
}

/// Whether these describe the same, in whatever order and by whatever names.
fn same(one: &[&HttpMatch], other: &[&HttpMatch]) -> bool {
    // Most are in the same order: one look at each is enough then.
    let mut pairs = one.iter().zip(other);
    if one.len() == other.len() && pairs.all(|(one, other)| one.describes_what(other)) {
        return true;
    }
    let within = |these: &[&HttpMatch], those: &[&HttpMatch]| {
        let mut these = these.iter();
        these.all(|this| those.iter().any(|that| this.describes_what(that)))
    };
    within(one, other) && within(other, one)
}

#[cfg(test)]
mod tests;
