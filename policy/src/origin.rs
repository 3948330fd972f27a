//! `Origin`: names the object (kind, namespace, name, rule) that made a decision, as text for
//! headers, logs and reports.
//!
//! A proxy reports which rule decided without having to know its kind: a controller that is
//! newer may know more kinds, and what they decide is expressed in the terms of this crate.

use std::cmp::Ordering;
use std::fmt;
use std::hash::{Hash, Hasher};
use std::sync::Arc;

/// A Kubernetes object, and which of its rules, that a decision can be traced back to.
/// Cheap to clone.
#[derive(Clone)]
pub struct Origin(Arc<Inner>);

#[derive(PartialEq, Eq, PartialOrd, Ord, Hash)]
struct Inner {
    kind: Box<str>,
    namespace: Arc<str>,
    name: Arc<str>,
    rule: Option<Box<str>>,
    /// `namespace/name`, or the name of what is in no namespace, made once for metrics.
    label: Arc<str>,
}

impl Origin {
    /// `kind` as Kubernetes spells it, such as `TrafficSplit`.
    pub fn new(kind: &str, namespace: impl Into<Arc<str>>, name: impl Into<Arc<str>>) -> Self {
        let (namespace, name) = (namespace.into(), name.into());
        let label = match &*namespace {
            "" => Arc::clone(&name),
            namespace => format!("{namespace}/{name}").into(),
        };
        Self(Arc::new(Inner {
            kind: kind.into(),
            namespace,
            name,
            rule: None,
            label,
        }))
    }

    /// One rule of the object, by its name or its place.
    #[must_use]
    pub fn rule(&self, rule: &str) -> Self {
        Self(Arc::new(Inner {
            kind: self.0.kind.clone(),
            namespace: Arc::clone(&self.0.namespace),
            name: Arc::clone(&self.0.name),
            rule: Some(rule.into()),
            label: Arc::clone(&self.0.label),
        }))
    }

    #[must_use]
    pub fn kind(&self) -> &str {
        &self.0.kind
    }

    #[must_use]
    pub fn namespace(&self) -> &Arc<str> {
        &self.0.namespace
    }

    #[must_use]
    pub fn name(&self) -> &Arc<str> {
        &self.0.name
    }

    /// Which rule of the object; `None` where it has but one.
    #[must_use]
    pub fn rule_name(&self) -> Option<&str> {
        self.0.rule.as_deref()
    }

    /// `namespace/name`, or the name alone, which is what metrics say of it.
    #[must_use]
    pub fn label(&self) -> &Arc<str> {
        &self.0.label
    }
}

impl PartialEq for Origin {
    fn eq(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.0, &other.0) || self.0 == other.0
    }
}

impl Eq for Origin {}

impl PartialOrd for Origin {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Origin {
    fn cmp(&self, other: &Self) -> Ordering {
        self.0.cmp(&other.0)
    }
}

impl Hash for Origin {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.0.hash(state);
    }
}

/// As people write it: `TrafficTarget shop/web`, with `rule` behind it where one is named.
impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.0.kind, self.0.label)?;
        match &self.0.rule {
            Some(rule) => write!(f, " rule {rule}"),
            None => Ok(()),
        }
    }
}

impl fmt::Debug for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Origin({self})")
    }
}

#[cfg(test)]
mod tests {
    use super::Origin;

    #[test]
    fn origin_reads_as_people_write_it() {
        let target = Origin::new("TrafficTarget", "shop", "web");
        assert_eq!(target.to_string(), "TrafficTarget shop/web");
        assert_eq!(&**target.label(), "shop/web");
        let rule = target.rule("writes");
        assert_eq!(rule.to_string(), "TrafficTarget shop/web rule writes");
        assert_eq!(rule.rule_name(), Some("writes"));
        assert_ne!(rule, target);
        // An unknown kind is a text like any other.
        assert_eq!(
            Origin::new("FuturePolicy", "", "x").to_string(),
            "FuturePolicy x"
        );
    }
}
