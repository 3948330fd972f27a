//! Releases: the names of the two sets that a Service's endpoints are divided into, and what the
//! candidate gets of the calls.
//!
//! A set is a backend like another one, so splits, breakers and counters keep the two apart with
//! no code of their own. What is configured for a Service is configured for its sets: whatever
//! looks that up by a backend maps its name first, by [`service_of`].

use std::fmt;

/// Stands between the name of a Service and that of a set. No name of Kubernetes has it, so
/// nothing that users make is called like a set.
const SEPARATOR: char = '@';

/// One of the two parts of a Service's endpoints during a release.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum ReleaseSet {
    /// All that are not of the candidate.
    Stable,
    /// Those of the revision that is released.
    Candidate,
}

impl ReleaseSet {
    pub const ALL: [Self; 2] = [Self::Stable, Self::Candidate];

    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Stable => "stable",
            Self::Candidate => "candidate",
        }
    }

    /// The name of this set of a Service: `web@candidate`.
    #[must_use]
    pub fn of(self, service: &str) -> String {
        format!("{service}{SEPARATOR}{self}")
    }

    /// The Service and the set that a backend's name means, with or without a namespace before
    /// it; `None` for the name of a Service.
    #[must_use]
    pub fn parse(backend: &str) -> Option<(&str, Self)> {
        let (service, set) = backend.rsplit_once(SEPARATOR)?;
        let mut all = Self::ALL.into_iter();
        Some((service, all.find(|one| one.as_str() == set)?))
    }
}

impl fmt::Display for ReleaseSet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// The Service that a backend's name means, with or without a namespace before it: `web` for
/// `web`, `web@stable` and `web@candidate`.
#[must_use]
pub fn service_of(backend: &str) -> &str {
    ReleaseSet::parse(backend).map_or(backend, |(service, _)| service)
}

/// What limits the candidate's part of the calls.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Limit {
    /// The step's weight, in percent.
    Step(u8),
    /// It was refused, and goes on to get so much at most: nothing, or a part where pods of the
    /// other set had gone already.
    Refused(u8),
}

/// The candidate's part of the calls in percent, where so many pods of each set serve.
///
/// A step gives the candidate at most its part of the pods, so that few pods are not overloaded by
/// being new. When it is refused while it is promoted, each stable pod takes at most twice its
/// part: more could make those fail, too.
#[must_use]
pub fn weight(limit: Limit, candidate: usize, stable: usize) -> u8 {
    let serving = candidate.saturating_add(stable);
    if candidate == 0 {
        return 0;
    }
    let percent = |pods: usize| u8::try_from(pods.saturating_mul(100) / serving).unwrap_or(100);
    match limit {
        Limit::Refused(most) => most.min(100 - percent(stable).saturating_mul(2).min(100)),
        Limit::Step(_) if stable == 0 => 100,
        Limit::Step(0) => 0,
        Limit::Step(most) => percent(candidate).max(1).min(most),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn set_name_leads_back_to_its_service() {
        for set in ReleaseSet::ALL {
            for service in ["web", "shop/web"] {
                let name = set.of(service);
                assert_eq!(ReleaseSet::parse(&name), Some((service, set)));
                assert_eq!(service_of(&name), service);
            }
        }
        assert_eq!(ReleaseSet::Candidate.of("web"), "web@candidate");
        for service in ["", "web", "shop/web", "web@other", "web-candidate"] {
            assert_eq!(ReleaseSet::parse(service), None);
            assert_eq!(service_of(service), service);
        }
    }

    #[test]
    fn weight_is_capped_by_pods_and_at_least_one() {
        let table = [
            (20, 1, 3, 20),
            (50, 1, 3, 25),
            (100, 2, 3, 40),
            (5, 1, 300, 1),
            (100, 0, 3, 0),
            (5, 2, 0, 100),
            (0, 2, 0, 100),
            (0, 1, 3, 0),
            (100, 0, 0, 0),
            (100, 3, 3, 50),
        ];
        for (most, candidate, stable, expected) in table {
            let weight = weight(Limit::Step(most), candidate, stable);
            assert_eq!(weight, expected, "{most} {candidate} {stable}");
        }
    }

    #[test]
    fn refused_candidate_gets_only_what_stable_pods_cannot_carry() {
        for (candidate, stable, expected) in [
            (1, 3, 0),
            (3, 3, 0),
            (2, 1, 34),
            (3, 1, 50),
            (2, 0, 100),
            (0, 0, 0),
        ] {
            let of = |most| weight(Limit::Refused(most), candidate, stable);
            assert_eq!(of(100), expected, "{candidate} {stable}");
            assert_eq!(of(20), expected.min(20), "{candidate} {stable}");
            assert_eq!(of(0), 0, "{candidate} {stable}");
        }
    }
}
