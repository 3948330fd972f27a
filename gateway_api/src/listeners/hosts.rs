//! A set of hostnames that finds quickly whether another one has a host in common with any of them.

use std::collections::BTreeSet;

use policy::egress::HostPattern;

/// Hostnames of routes. Names are kept from behind, so that those below a name stand behind it.
#[derive(Clone, Debug, Default)]
pub struct HostSet {
    every: bool,
    exact: BTreeSet<String>,
    below: BTreeSet<String>,
}

impl HostSet {
    /// Adds a hostname; `None` is every host.
    pub fn insert(&mut self, hostname: Option<&HostPattern>) {
        match hostname {
            None => self.every = true,
            Some(HostPattern::Exact(name)) => drop(self.exact.insert(reversed(name))),
            Some(HostPattern::Below(name)) => drop(self.below.insert(reversed(name))),
        }
    }

    /// Whether some host is meant both by this hostname and by one of the set.
    #[must_use]
    pub fn meets(&self, hostname: Option<&HostPattern>) -> bool {
        let is_empty = self.exact.is_empty() && self.below.is_empty();
        let Some(hostname) = hostname else {
            return self.every || !is_empty;
        };
        if self.every {
            return true;
        }
        match hostname {
            HostPattern::Exact(name) => {
                let name = reversed(name);
                self.exact.contains(&name) || self.has_above(&name)
            }
            HostPattern::Below(name) => {
                let name = reversed(name);
                let beyond = format!("{name}.");
                let within = |names: &BTreeSet<String>| {
                    let next = names.range(beyond.clone()..).next();
                    next.is_some_and(|next| next.starts_with(&beyond))
                };
                self.below.contains(&name)
                    || self.has_above(&name)
                    || within(&self.exact)
                    || within(&self.below)
            }
        }
    }

    /// Whether a pattern covers all that is below a name from behind, or the name itself.
    fn has_above(&self, name: &str) -> bool {
        let mut ends = name.match_indices('.').map(|(at, _)| &name[..at]);
        ends.any(|end| self.below.contains(end))
    }
}

fn reversed(name: &str) -> String {
    name.chars().rev().collect()
}

#[cfg(test)]
mod tests {
    use super::super::intersection;
    use super::*;

    #[test]
    fn host_set_meets_what_one_of_it_meets() {
        let written = [
            "",
            "example.com",
            "a.example.com",
            "b.a.example.com",
            "*.example.com",
            "*.a.example.com",
            "*.com",
            "anexample.com",
            "*.example.org",
        ];
        let patterns: Vec<Option<HostPattern>> =
            written.iter().map(|raw| raw.parse().ok()).collect();
        for one in &patterns {
            for two in &patterns {
                let mut set = HostSet::default();
                set.insert(one.as_ref());
                set.insert(two.as_ref());
                for asked in &patterns {
                    let meets = |known: &Option<HostPattern>| match (known, asked) {
                        (Some(known), Some(asked)) => intersection(known, asked).is_some(),
                        _ => true,
                    };
                    let expected = meets(one) || meets(two);
                    let named = (one, two, asked);
                    assert_eq!(set.meets(asked.as_ref()), expected, "{named:?}");
                }
            }
        }
        assert!(!HostSet::default().meets(None));
    }
}
