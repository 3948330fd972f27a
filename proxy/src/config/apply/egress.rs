//! Parses the egress configuration of the own pod: the ExternalServices that it may call outside
//! the mesh.
//!
//! Invariant: what cannot be read never allows more than before. And what stands at an address of
//! the mesh is no server outside it, whatever a name resolves to.

use std::sync::Arc;

use policy::egress::{Egress, EgressMode, ExternalTarget};
use wire::{convert, v1};

use crate::config::snapshot::Snapshot;
use crate::endpoints::endpoint::Endpoint;
use crate::endpoints::registry::Registry;

/// How calls of a Service leave the mesh that stands for a host outside it.
pub(super) fn external_of(sent: &v1::Endpoints) -> Result<Option<Arc<ExternalTarget>>, String> {
    let target = sent.external.as_ref().map(convert::external_target);
    let target = target.transpose().map_err(|bad| bad.to_string())?;
    Ok(target.map(Arc::new))
}

/// Those of the endpoints that may be called in plaintext as servers outside the mesh.
pub(super) fn outside(endpoints: Vec<Arc<Endpoint>>, registry: &Registry) -> Vec<Arc<Endpoint>> {
    let mut endpoints = endpoints;
    endpoints.retain(|endpoint| !endpoint.meshed() && !registry.was_meshed(endpoint.addr));
    endpoints
}

/// Those of the endpoints that calls may be handed over to, which prove that they are a Gateway's.
pub(super) fn gateways(mut endpoints: Vec<Arc<Endpoint>>) -> Vec<Arc<Endpoint>> {
    endpoints.retain(|endpoint| endpoint.meshed());
    endpoints
}

impl Snapshot {
    pub(super) fn set_egress(&mut self, sent: &v1::Egress) -> Result<(), String> {
        match convert::egress(sent) {
            Ok(egress) => {
                self.egress = Arc::new(egress);
                Ok(())
            }
            Err(bad) => {
                let tightened = self.tightened(sent);
                if tightened != *self.egress {
                    // What is held is not what the controller has sent under this version.
                    self.versions.remove(wire::names::EGRESS);
                    self.egress = Arc::new(tightened);
                }
                Err(bad.to_string())
            }
        }
    }

    /// The last one that could be read, in the stricter mode of the two; nothing may be called
    /// where there is none.
    fn tightened(&self, sent: &v1::Egress) -> Egress {
        let is_known = self.versions.contains_key(wire::names::EGRESS);
        if !is_known && self.egress.is_idle() {
            return Egress::closed();
        }
        let mode = v1::egress::Mode::try_from(sent.mode);
        let mode = mode.map_or(EgressMode::Deny, EgressMode::from);
        Egress {
            mode: self.egress.mode.max(mode),
            objects: self.egress.objects.clone(),
        }
    }
}

#[cfg(test)]
pub(super) mod tests {
    use policy::egress::{Decision, ExternalCall};
    use wire::v1::egress::Mode;
    use wire::v1::resource::Content;

    use super::*;

    /// What a controller may send.
    pub(in crate::config::apply) fn sample() -> (String, Content) {
        let sent = egress(Mode::Deny, "api.pay.example");
        (wire::names::EGRESS.to_owned(), Content::Egress(sent))
    }

    fn egress(mode: Mode, host: &str) -> v1::Egress {
        let object = v1::ExternalObject {
            origin: Some(v1::ObjectRef {
                kind: "ExternalService".to_owned(),
                namespace: "shop".to_owned(),
                name: "pay".to_owned(),
            }),
            hosts: vec![host.to_owned()],
            ports: vec![v1::ExternalPort {
                port: 443,
                protocol: v1::external_port::Protocol::Tls.into(),
                target_port: 443,
                tls: None,
            }],
            ..v1::ExternalObject::default()
        };
        v1::Egress {
            mode: mode.into(),
            objects: vec![object],
        }
    }

    fn resource(mode: Mode, host: &str) -> v1::Resource {
        wire::version::stamp(v1::Resource {
            name: wire::names::EGRESS.to_owned(),
            version: String::new(),
            content: Some(Content::Egress(egress(mode, host))),
        })
    }

    fn after(snapshot: &Snapshot, set: Vec<v1::Resource>) -> (Snapshot, usize) {
        let batch = v1::Batch {
            set,
            ..v1::Batch::default()
        };
        let (next, nacks) = snapshot.after(batch, &Registry::default());
        (next, nacks.len())
    }

    /// Mode, and whether the host is given.
    fn is(snapshot: &Snapshot) -> (EgressMode, bool) {
        let decision = snapshot.egress.decide(&ExternalCall {
            addr: [203, 0, 113, 7].into(),
            port: 443,
            host: None,
            sni: Some("api.pay.example"),
        });
        (
            snapshot.egress.mode,
            matches!(decision, Decision::Object(_)),
        )
    }

    #[test]
    fn unreadable_egress_never_allows_more() {
        const GOOD: &str = "api.pay.example";
        const BAD: &str = "not a name";
        let none = Snapshot::default();
        assert_eq!(is(&none), (EgressMode::Allow, false));
        let (first, nacks) = after(&none, vec![resource(Mode::Allow, BAD)]);
        assert_eq!((is(&first), nacks), ((EgressMode::Deny, false), 1));
        assert_ne!(first.policy_revision, none.policy_revision);
        for (before, refused, mode) in [
            (Mode::Allow, Mode::Deny, EgressMode::Deny),
            (Mode::Deny, Mode::Allow, EgressMode::Deny),
            (Mode::Audit, Mode::Allow, EgressMode::Audit),
        ] {
            let (good, nacks) = after(&none, vec![resource(before, GOOD)]);
            assert_eq!(nacks, 0);
            let (bad, nacks) = after(&good, vec![resource(refused, BAD)]);
            assert_eq!((is(&bad), nacks), ((mode, true), 1), "{before:?}");
        }
    }

    /// A controller of another version may have sent it. One whose resources can be read sends the
    /// former one again, or none, and the calls pass again that passed then.
    #[test]
    fn unreadable_egress_holds_until_it_is_replaced() {
        const GOOD: &str = "api.pay.example";
        let bad = || vec![resource(Mode::Deny, "not a name")];
        let none = Snapshot::default();
        let (good, _) = after(&none, vec![resource(Mode::Allow, GOOD)]);
        for (before, given) in [(&none, false), (&good, true)] {
            let (first, _) = after(before, bad());
            let (second, nacks) = after(&first, bad());
            assert_eq!(nacks, 1);
            for tightened in [&first, &second] {
                assert_eq!(is(tightened), (EgressMode::Deny, given));
                // So that it is sent whole to a proxy that comes back.
                assert!(!tightened.versions.contains_key(wire::names::EGRESS));
            }
            let full = v1::Batch {
                full: true,
                ..v1::Batch::default()
            };
            let (without, _) = second.after(full, &Registry::default());
            assert_eq!(is(&without), (EgressMode::Allow, false));
            assert_ne!(without.policy_revision, second.policy_revision);
        }
    }

    /// A name may resolve to a pod, whose address plaintext must not go to.
    // Claims: egress-4
    #[test]
    fn answers_inside_the_mesh_are_no_servers_outside() {
        let registry = Registry::default();
        let inside = ([10, 0, 0, 1], 80).into();
        registry.note_meshed(inside, true);
        let endpoint = |ip: &str| v1::Endpoint {
            ip: ip.to_owned(),
            port: 80,
            ..v1::Endpoint::default()
        };
        let name = wire::names::external("api.pay.example", 80);
        let resource = v1::Resource {
            name: name.clone(),
            version: String::new(),
            content: Some(Content::Endpoints(v1::Endpoints {
                endpoints: vec![endpoint("10.0.0.1"), endpoint("203.0.113.7")],
                ..v1::Endpoints::default()
            })),
        };
        let batch = v1::Batch {
            set: vec![wire::version::stamp(resource)],
            ..v1::Batch::default()
        };
        let (next, nacks) = Snapshot::default().after(batch, &registry);
        assert!(nacks.is_empty(), "{nacks:?}");
        let set = next.endpoints_of(&name).unwrap();
        let left: Vec<String> = set
            .endpoints
            .iter()
            .map(|endpoint| endpoint.addr.to_string())
            .collect();
        assert_eq!(left, ["203.0.113.7:80"]);
        assert!(registry.was_meshed(inside), "no name makes it another one");
    }
}
