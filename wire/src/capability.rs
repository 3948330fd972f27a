//! The capabilities that a proxy declares: which parts of the configuration it understands.
//!
//! A proxy lists its capabilities in its Hello message. The controller skips what a proxy could
//! not use: else the proxy would read it without its unknown part, which might be the part that
//! restricts it.
//!
//! A controller ignores names that it does not know. A proxy that names none is older than the
//! names, and has those of [`Capabilities::default`].
//!
//! For TrafficPolicies a proxy names every part that it carries out. With one of them it is sent
//! policies as they are: [`crate::convert`] ignores what it does not know, in the way that is
//! never wider. The names of the parts serve the object's status.

use std::collections::BTreeSet;

use policy::traffic::part::{Part, Parts};

use crate::v1;
use crate::v1::resource::Content;

/// A row for each: what it is, and its name in Hello. From one table, so that Hello cannot
/// miss one.
macro_rules! capabilities {
    ($($(#[$doc:meta])+ $one:ident = $name:literal;)+) => {
        /// Something that not every proxy understands.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub enum Capability {
            $($(#[$doc])+ $one,)+
        }

        impl Capability {
            /// All that have a name.
            pub const ALL: &'static [Self] = &[$(Self::$one),+];

            /// The name in Hello.
            #[must_use]
            pub const fn as_str(self) -> &'static str {
                match self {
                    $(Self::$one => $name),+
                }
            }
        }
    };
}

capabilities! {
    /// Rules that say what the first version of them could not: ports beyond which nothing
    /// applies, and sources that are pods.
    ExtendedRule = "extended-rule";
    /// What it is to tell of itself: its log's filter, changed while it runs.
    Telemetry = "telemetry";
    /// How it is to name requests to its pod.
    Routes = "routes";
    /// Questions while it streams, which it answers by a call of their own.
    Asks = "asks";
    /// Which of its workload's proxies it is, so that it uses a part of a large Service.
    Place = "place";
    /// Questions that give it rules to try on live calls.
    Trial = "trial";
    /// Grants of FaultExperiments, without which its rules of them harm nothing.
    Faults = "faults";
    /// Routes of the Gateway API. A proxy without it is sent the Service with its splits.
    ServiceRoutes = "service-routes";
    /// What it may call outside the mesh, and Services that stand for what is there.
    Egress = "egress";
    /// Objects outside the mesh whose calls are handed over to a Gateway, and never go there directly.
    EgressGateways = "egress-gateways";
    /// The fields of a bundle by which one root replaces another: it requests another certificate
    /// before the end of its own, and ends connections of other authorities.
    Rotation = "rotation";
    /// Whose certificates it is to refuse. A proxy without it refuses none.
    Revocations = "revocations";
    /// What a Gateway serves, and the certificates of its listeners. Only programs that are a
    /// Gateway have it.
    Gateway = "gateway";
}

impl Capability {
    /// What a proxy of this version has that serves one application.
    pub const OF_THIS_VERSION: &'static [Self] = &[
        Self::ExtendedRule,
        Self::Telemetry,
        Self::Routes,
        Self::Asks,
        Self::Place,
        Self::Trial,
        Self::Faults,
        Self::ServiceRoutes,
        Self::Egress,
        Self::EgressGateways,
        Self::Rotation,
        Self::Revocations,
    ];

    /// What a proxy has to understand to use a resource; `None` if every proxy can.
    #[must_use]
    fn needed_for(resource: &v1::Resource) -> Option<Self> {
        match resource.content.as_ref()? {
            Content::ExtendedRule(_) => Some(Self::ExtendedRule),
            Content::Telemetry(_) => Some(Self::Telemetry),
            Content::Routes(_) => Some(Self::Routes),
            Content::Place(_) => Some(Self::Place),
            Content::RoutedService(_) => Some(Self::ServiceRoutes),
            Content::Egress(_) => Some(Self::Egress),
            Content::Revocations(_) => Some(Self::Revocations),
            Content::Gateway(_) | Content::ListenerCertificate(_) => Some(Self::Gateway),
            Content::Policy(_)
            | Content::Guard(_)
            | Content::Bundle(_)
            | Content::Workload(_)
            | Content::Rule(_)
            | Content::Destination(_)
            | Content::Service(_)
            | Content::Endpoints(_) => None,
        }
    }
}

/// What one proxy understands.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Capabilities {
    understood: BTreeSet<Capability>,
    parts: Parts,
}

impl Default for Capabilities {
    /// Of a proxy that names none.
    fn default() -> Self {
        Self {
            understood: BTreeSet::from([Capability::ExtendedRule]),
            parts: Parts::NONE,
        }
    }
}

impl Capabilities {
    /// As a proxy names them in Hello.
    #[must_use]
    pub fn named(names: &[String]) -> Self {
        if names.is_empty() {
            return Self::default();
        }
        let named = |known: &str| names.iter().any(|name| name == known);
        let understood = Capability::ALL.iter().copied();
        let parts = Part::ALL.iter().copied();
        let parts: Vec<Part> = parts.filter(|part| named(part.capability())).collect();
        Self {
            understood: understood.filter(|one| named(one.as_str())).collect(),
            parts: Parts::of(&parts),
        }
    }

    /// The names that a proxy of this version sends.
    #[must_use]
    pub fn of_this_version() -> Vec<String> {
        Self::names(Capability::OF_THIS_VERSION, Part::IN_FORCE)
    }

    /// The names that a Gateway of this version sends.
    #[must_use]
    pub fn of_gateways() -> Vec<String> {
        let own = Capability::Gateway.as_str().to_owned();
        Self::of_this_version().into_iter().chain([own]).collect()
    }

    /// The names that a proxy sends which understands all that there is.
    #[must_use]
    pub fn of_everything() -> Vec<String> {
        Self::names(Capability::ALL, Part::ALL)
    }

    fn names(understood: &[Capability], parts: &[Part]) -> Vec<String> {
        let understood = understood.iter().map(|one| one.as_str());
        let parts = parts.iter().map(|part| part.capability());
        understood.chain(parts).map(str::to_owned).collect()
    }

    /// The names that a proxy of this version sends and this one did not.
    pub fn missing(&self) -> impl Iterator<Item = &'static str> {
        let understood = Capability::OF_THIS_VERSION.iter();
        let understood = understood.filter(|one| !self.understood.contains(one));
        let parts = Parts::IN_FORCE.without(self.parts).iter();
        let understood = understood.map(|one| one.as_str());
        understood.chain(parts.map(Part::capability))
    }

    /// What of TrafficPolicies the proxy carries out.
    #[must_use]
    pub const fn parts(&self) -> Parts {
        self.parts
    }

    /// Whether the proxy understands this.
    #[must_use]
    pub fn has(&self, capability: Capability) -> bool {
        self.understood.contains(&capability)
    }

    /// Whether the proxy can use a resource.
    #[must_use]
    pub fn suffice_for(&self, resource: &v1::Resource) -> bool {
        Capability::needed_for(resource).is_none_or(|needed| self.has(needed))
    }
}

#[cfg(test)]
mod tests {
    use prost::Message as _;

    use super::*;

    /// Hello as it was before proxies named what they understand.
    #[derive(Clone, PartialEq, prost::Message)]
    struct EarlierHello {
        #[prost(string, tag = "1")]
        proxy_version: String,
        #[prost(string, repeated, tag = "3")]
        destinations: Vec<String>,
    }

    fn extended_rule() -> v1::Resource {
        v1::Resource {
            content: Some(Content::ExtendedRule(v1::Rule::default())),
            ..v1::Resource::default()
        }
    }

    #[test]
    fn older_proxy_without_capability_names_keeps_its_capabilities() {
        let hello = EarlierHello {
            proxy_version: "0.1.0".to_owned(),
            destinations: vec!["destination/10.0.0.1:80".to_owned()],
        };
        let read = v1::Hello::decode(hello.encode_to_vec().as_slice()).unwrap();
        assert_eq!(read.proxy_version, hello.proxy_version);
        assert_eq!(read.destinations, hello.destinations);
        let capabilities = Capabilities::named(&read.capabilities);
        assert_eq!(capabilities, Capabilities::default());
        assert!(capabilities.suffice_for(&extended_rule()));
    }

    #[test]
    fn older_controller_reads_hello_ignoring_capabilities() {
        let hello = v1::Hello {
            proxy_version: "0.2.0".to_owned(),
            destinations: vec!["destination/10.0.0.1:80".to_owned()],
            capabilities: Capabilities::of_this_version(),
            ..v1::Hello::default()
        };
        let read = EarlierHello::decode(hello.encode_to_vec().as_slice()).unwrap();
        assert_eq!(read.proxy_version, hello.proxy_version);
        assert_eq!(read.destinations, hello.destinations);
    }

    #[test]
    fn unknown_capability_is_ignored_and_unnamed_is_absent() {
        let named = |names: &[&str]| {
            let names: Vec<String> = names.iter().map(|name| (*name).to_owned()).collect();
            Capabilities::named(&names)
        };
        assert!(named(&["time-travel", "extended-rule"]).suffice_for(&extended_rule()));
        assert!(!named(&["time-travel"]).suffice_for(&extended_rule()));
        let plain = v1::Resource {
            content: Some(Content::Rule(v1::Rule::default())),
            ..v1::Resource::default()
        };
        assert!(named(&["time-travel"]).suffice_for(&plain));
        let own = Capabilities::named(&Capabilities::of_this_version());
        assert!(own.suffice_for(&extended_rule()));
        assert_eq!(own.missing().count(), 0);
        let lacks: Vec<&str> = named(&["extended-rule", "traffic-policy/retry"])
            .missing()
            .collect();
        assert!(lacks.contains(&"telemetry") && lacks.contains(&"traffic-policy/ejection"));
        assert!(!lacks.contains(&"extended-rule") && !lacks.contains(&"traffic-policy/retry"));
    }

    #[test]
    fn parts_of_policies_are_named_one_by_one() {
        let named = |name: &str| Capabilities::named(&[name.to_owned()]).parts();
        assert_eq!(named("traffic-policy/retry"), Parts::of(&[Part::Retry]));
        // What proxies might have sent before there were parts, and what is unknown.
        assert_eq!(named("traffic-policy"), Parts::NONE);
        assert_eq!(named("traffic-policy/time-travel"), Parts::NONE);
        assert_eq!(Capabilities::named(&[]).parts(), Parts::NONE);
        let own = Capabilities::named(&Capabilities::of_this_version());
        assert_eq!(own.parts(), Parts::IN_FORCE);
        let all = Capabilities::named(&Capabilities::of_everything());
        assert_eq!(all.parts(), Parts::ALL);
    }

    #[test]
    fn gateways_alone_are_sent_listeners_and_keys() {
        let proxy = Capabilities::named(&Capabilities::of_this_version());
        let gateway = Capabilities::named(&Capabilities::of_gateways());
        for content in [
            Content::Gateway(v1::Gateway::default()),
            Content::ListenerCertificate(v1::ListenerCertificate::default()),
        ] {
            let resource = v1::Resource {
                content: Some(content),
                ..v1::Resource::default()
            };
            assert!(gateway.suffice_for(&resource));
            assert!(!proxy.suffice_for(&resource));
            assert!(!Capabilities::default().suffice_for(&resource));
        }
        assert_eq!(gateway.missing().count(), 0);
        let known = Capability::OF_THIS_VERSION.len() + 1;
        assert_eq!(known, Capability::ALL.len(), "one is a Gateway's alone");
    }
}
