//! Facts of SMI objects.
//!
//! Each is validated once, when it is read: its parsed meaning, and every validation error with
//! the field that it is about. `compile` handles what depends on other objects.

use std::sync::Arc;

use crds::smi::validation::{Binding, Code, Mistake, RouteGroup, RoutePorts, Split, Target};

use super::fact::Fact;

/// What every SMI object has. Not its resource version: that changes with every write of the
/// status, which is no change here.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Meta {
    /// Counts changes of the spec.
    pub generation: i64,
    /// Creation time, seconds since 1970.
    pub created: i64,
    /// Unique id.
    pub uid: Arc<str>,
    /// What is wrong with the object by itself.
    pub mistakes: Vec<Mistake>,
}

impl Meta {
    /// Why the object could not be read, if it could not. It then means nothing but what it
    /// protects.
    pub fn unreadable(&self) -> Option<&Mistake> {
        let mut mistakes = self.mistakes.iter();
        mistakes.find(|mistake| mistake.code == Code::Unreadable)
    }
}

/// A TrafficTarget.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct TargetFacts {
    /// Metadata, and what is wrong.
    pub meta: Meta,
    /// Which sources may call which destination, with what.
    pub spec: Target,
}

impl Fact for TargetFacts {
    // Under mode auto even a new target tightens.
    fn urgent(_: Option<&Self>, _: Option<&Self>) -> bool {
        true
    }
}

/// A TrafficSplit.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct SplitFacts {
    /// Metadata, and what is wrong.
    pub meta: Meta,
    /// Which shares of which Service.
    pub spec: Split,
}

impl Fact for SplitFacts {}

/// An HTTPRouteGroup.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct GroupFacts {
    /// Metadata, and what is wrong.
    pub meta: Meta,
    /// Its matches.
    pub spec: RouteGroup,
}

impl Fact for GroupFacts {
    fn urgent(_: Option<&Self>, _: Option<&Self>) -> bool {
        true
    }
}

/// A TCPRoute.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct TcpRouteFacts {
    /// Metadata, and what is wrong.
    pub meta: Meta,
    /// What it stands for.
    pub ports: RoutePorts,
}

impl Fact for TcpRouteFacts {
    fn urgent(_: Option<&Self>, _: Option<&Self>) -> bool {
        true
    }
}

/// A UDPRoute.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct UdpRouteFacts {
    /// Metadata, and what is wrong.
    pub meta: Meta,
    /// What it stands for.
    pub ports: RoutePorts,
}

impl Fact for UdpRouteFacts {
    fn urgent(_: Option<&Self>, _: Option<&Self>) -> bool {
        true
    }
}

/// An IdentityBinding.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct BindingFacts {
    /// Metadata, and what is wrong.
    pub meta: Meta,
    /// The pods that it means.
    pub spec: Binding,
}

impl Fact for BindingFacts {
    fn urgent(_: Option<&Self>, _: Option<&Self>) -> bool {
        true
    }
}
